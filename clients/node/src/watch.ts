/** Finds pauses and advice in what the bridge answers, and tells each once. */

import { isRecord } from "./errors.js";
import type { Pause, Warning } from "./generated.js";

/** The kinds of warnings that are advice: why reports may be worth nothing. */
const ADVICE = new Set(["few_tasks", "rate_jump", "rate_high", "many_refused", "often_late", "tasks_unknown"]);
/** The bridge puts the same advice into answers once an hour; what bridge.status repeats is held to that too. */
const ADVICE_AGAIN_MS = 3_600_000;
const MAX_PAUSES = 1_000;

export interface WatchPorts {
  onPause?: ((pause: Pause) => void) | undefined;
  onAdvice?: ((advice: Warning) => void) | undefined;
}

/** Advice that was told. An answer does not say whose it is; the first status that has it does. */
interface Told {
  readonly kind: unknown;
  readonly message: unknown;
  readonly at: number;
  account: unknown;
  inAnswer: boolean;
}

export class Watch {
  readonly #ports: WatchPorts;
  readonly #pauses = new Set<string>();
  #told: Told[] = [];

  constructor(ports: WatchPorts) {
    this.#ports = ports;
  }

  /** Looks at a result or at the data of an error. */
  look(answer: unknown): void {
    if (!isRecord(answer)) return;
    for (const pause of [answer["pause"], ...listOf(answer["pauses"])]) if (isRecord(pause)) this.#pause(pause);
    for (const warning of listOf(answer["warnings"])) {
      if (isRecord(warning) && ADVICE.has(String(warning["kind"]))) this.#warn(warning);
    }
    const advice = listOf(answer["advice"]).filter(isRecord);
    for (const kind of ADVICE) {
      const found = advice.filter((each) => each["kind"] === kind);
      if (found.length > 0) this.#advise(kind, found);
    }
  }

  #pause(pause: Record<string, unknown>): void {
    const name = `${String(pause["scope"])} ${String(pause["cause"])} ${String(pause["openedAt"])}`;
    if (this.#pauses.has(name)) return;
    const [oldest] = this.#pauses;
    if (this.#pauses.size >= MAX_PAUSES && oldest !== undefined) this.#pauses.delete(oldest);
    this.#pauses.add(name);
    notify(this.#ports.onPause, pause as unknown as Pause);
  }

  /** Advice in an answer is news, unless a status has told the same sentence. */
  #warn(warning: Record<string, unknown>): void {
    const { kind, message } = warning;
    const same = this.#lately(kind).find((told) => !told.inAnswer && told.message === message);
    if (same === undefined) this.#tell(warning, true);
    else same.inAnswer = true;
  }

  /** Advice of one kind in a status is no news for an account that was told of, and for as many more as answers have told of. */
  #advise(kind: string, found: ReadonlyArray<Record<string, unknown>>): void {
    const lately = this.#lately(kind);
    const isNobodys = ({ account }: Told): boolean => account === undefined;
    const unknown = found.filter(({ account }) => !lately.some((told) => told.account === account));
    // The figures move, so a sentence need not be the same. With more accounts than answers it must: nobody knows which are new.
    const isSure = unknown.length <= lately.filter(isNobodys).length;
    for (const advice of unknown) {
      const told = lately.find((each) => isNobodys(each) && (isSure || each.message === advice["message"]));
      if (told === undefined) this.#tell(advice, false);
      else told.account = advice["account"];
    }
    if (!isSure) this.#told = this.#told.filter((told) => told.kind !== kind || !isNobodys(told));
  }

  #lately(kind: unknown): Told[] {
    const now = performance.now();
    this.#told = this.#told.filter(({ at }) => now - at < ADVICE_AGAIN_MS);
    return this.#told.filter((told) => told.kind === kind);
  }

  #tell(advice: Record<string, unknown>, inAnswer: boolean): void {
    const { kind, message, account } = advice;
    this.#told.push({ kind, message, account, inAnswer, at: performance.now() });
    notify(this.#ports.onAdvice, advice as unknown as Warning);
  }
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

/** A callback that throws must not harm the reading of answers: its error surfaces on its own. */
export function notify<T>(callback: ((value: T) => void) | undefined, value: T): void {
  try {
    callback?.(value);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

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

export class Watch {
  readonly #ports: WatchPorts;
  readonly #pauses = new Set<string>();
  readonly #adviceAt = new Map<string, number>();

  constructor(ports: WatchPorts) {
    this.#ports = ports;
  }

  /** Looks at a result or at the data of an error. */
  look(answer: unknown): void {
    if (!isRecord(answer)) return;
    for (const pause of [answer["pause"], ...listOf(answer["pauses"])]) if (isRecord(pause)) this.#pause(pause);
    for (const warning of listOf(answer["warnings"])) this.#advice(warning, true);
    for (const advice of listOf(answer["advice"])) this.#advice(advice, false);
  }

  #pause(pause: Record<string, unknown>): void {
    const name = `${String(pause["scope"])} ${String(pause["cause"])} ${String(pause["openedAt"])}`;
    if (this.#pauses.has(name)) return;
    const [oldest] = this.#pauses;
    if (this.#pauses.size >= MAX_PAUSES && oldest !== undefined) this.#pauses.delete(oldest);
    this.#pauses.add(name);
    notify(this.#ports.onPause, pause as unknown as Pause);
  }

  #advice(advice: unknown, isNews: boolean): void {
    if (!isRecord(advice) || !ADVICE.has(String(advice["kind"]))) return;
    const name = `${String(advice["kind"])} ${String(advice["account"])}`;
    const now = performance.now();
    const last = this.#adviceAt.get(name);
    if (!isNews && last !== undefined && now - last < ADVICE_AGAIN_MS) return;
    this.#adviceAt.set(name, now);
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

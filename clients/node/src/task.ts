/** A solved task in the hand of the bot: knows which method reports it, and since when the 60 seconds run. */

import type { Bridge } from "./bridge.js";
import type { CallOptions } from "./channel.js";
import { ReportError } from "./errors.js";
import { TASK_TYPES, type LanguagePool, type ReportMethod, type ReportParams, type ReportResult } from "./generated.js";
import { meant } from "./names.js";
import { readNumber, readTaskId } from "./params.js";

/** What createTask and getTaskResult said. Strings are taken for numbers, as the vendor's samples have them. */
export interface TaskFacts {
  readonly taskId: number | string;
  /** `task.type` of createTask. */
  readonly taskType: string;
  /** UNIX seconds at which the task was solved; a report is taken for 60 s from then on. */
  readonly endTime?: number | string | null | undefined;
  /** What the task cost, in US dollars. */
  readonly cost?: number | string | null | undefined;
  /** `task.languagePool` of createTask, for images. */
  readonly languagePool?: LanguagePool | null | undefined;
  /** The account, if it is not the bridge's own. */
  readonly clientKey?: string | null | undefined;
}

type Direction = "wrong" | "right";
type MethodsOf = Readonly<Record<Direction, ReportMethod | null>>;
type Names = Readonly<Record<Direction, "reportWrong" | "reportRight">>;

const NAMES: Names = { wrong: "reportWrong", right: "reportRight" };
const METHODS = new Map<string, MethodsOf>(Object.entries(TASK_TYPES).map(([name, row]) => [name.toLowerCase(), row]));

/** Made by `bridge.task(…)`. One report counts for a task, so call one of its two methods, once. */
export class Task {
  readonly taskId: number;
  readonly taskType: string;
  readonly #bridge: Bridge;
  readonly #params: ReportParams;

  /** Also tells the bridge that a task was solved. Throws TypeError for facts that cannot be. */
  constructor(bridge: Bridge, facts: TaskFacts) {
    const { taskType, clientKey, languagePool } = facts;
    const completedAt = readNumber("endTime", facts.endTime);
    this.taskId = readTaskId(facts.taskId);
    this.taskType = taskType;
    this.#bridge = bridge;
    this.#params = { taskId: this.taskId, taskType, completedAt, languagePool, clientKey };
    bridge.noteTasks({ taskType, cost: facts.cost, clientKey });
  }

  /** The answer was wrong. Rejects with ReportError `wrong_method`, before anything is sent, if the vendor takes no such report. */
  async reportWrong(options?: CallOptions): Promise<ReportResult> {
    return this.#report("wrong", options);
  }

  /** The answer was right; for reCAPTCHA only. Rejects as reportWrong does. */
  async reportRight(options?: CallOptions): Promise<ReportResult> {
    return this.#report("right", options);
  }

  #report(direction: Direction, options: CallOptions | undefined): Promise<ReportResult> {
    const method = METHODS.get(this.taskType.toLowerCase())?.[direction];
    if (method === undefined || method === null) throw this.#refuse(direction);
    return this.#bridge[method](this.#params, options);
  }

  #refuse(direction: Direction): ReportError {
    const known = METHODS.get(this.taskType.toLowerCase());
    const reason =
      known === undefined
        ? `this version does not know the task's type, so it cannot choose a method.${meant(this.taskType, Object.keys(TASK_TYPES))}`
        : known.wrong === null
          ? "the vendor takes no reports about tasks of this type."
          : `the vendor takes no reports of ${direction} answers about tasks of this type.`;
    const call = { method: NAMES[direction], taskId: this.taskId, written: false };
    const [kind, outcome] = ["wrong_method", "not_sent"] as const;
    const data = { kind, outcome, retryable: false, attempts: 0, replayed: false, durable: false };
    return new ReportError(call, -32012, `Nothing was sent: ${reason}`, data);
  }
}

/** The public face: one object, one method per method of the bridge. */

import { isSignal } from "./aborts.js";
import type { CallOptions, ProtocolTrouble } from "./channel.js";
import type { CommandOptions } from "./command.js";
import { Connection } from "./connection.js";
import { BridgeDownError, isRecord, ReportError } from "./errors.js";
import type {
  BridgeInfo,
  BridgeStatus,
  GetReportParams,
  ListReportsParams,
  ListReportsResult,
  Methods,
  OpenRpcDocument,
  Pause,
  ReportParams,
  ReportRecord,
  ReportResult,
  ResumeParams,
  ResumeResult,
  Warning,
} from "./generated.js";
import { Notes } from "./notes.js";
import { CALLBACK, FLAG, MAX_TIMER_MS, MILLISECONDS, readOptions, TEXT, TEXTS, VARIABLES, type Rule } from "./options.js";
import { readNumber, tidyParams } from "./params.js";
import { Task, type TaskFacts } from "./task.js";
import { notify, Watch } from "./watch.js";

/** The window of a report is 60 s and its last attempt takes at most 10 s; the rest is for the way. */
const DEFAULT_TIMEOUT_MS = 75_000;
const DEFAULT_START_TIMEOUT_MS = 10_000;
/** A child that served this long was healthy: the next start is not held back. */
const HEALTHY_MS = 10_000;

/** When a child has died, new calls start another one. Calls in flight are rejected all the same. */
export interface RestartPolicy {
  /** Wait before the first start after a death, doubled for each death soon after; default 100 ms. 0: none, ever. */
  readonly firstDelayMs?: number | undefined;
  /** Longest wait; default 10,000 ms. 0: none. */
  readonly maxDelayMs?: number | undefined;
}

export interface BridgeOptions extends CommandOptions {
  /** For calls that name none: default 75,000 ms, longer than a report can take. 0 or Infinity: without end. */
  readonly timeoutMs?: number | undefined;
  /** How long the bridge may take to answer for the first time; default 10,000 ms. 0 or Infinity: without end. */
  readonly startTimeoutMs?: number | undefined;
  /** How long `close` waits for accepted reports, before SIGTERM; default 75,000 ms. 0: not at all; Infinity: without end. */
  readonly closeTimeoutMs?: number | undefined;
  /** How long SIGTERM may take before SIGKILL; default: the bridge's drain and 2 s more. 0: no time; Infinity: without end. */
  readonly drainTimeoutMs?: number | undefined;
  /** Default false: after a death every call fails. */
  readonly restart?: boolean | RestartPolicy | undefined;
  /** Gets every line of the bridge's stderr. Without it only the last 20 lines are kept, for errors. */
  readonly onStderr?: ((line: string) => void) | undefined;
  /** Gets what came in and fits no call. It is counted in `protocolErrors` in any case. */
  readonly onProtocolError?: ((trouble: ProtocolTrouble) => void) | undefined;
  /** Gets each pause of sending once, from the first answer that tells of it. */
  readonly onPause?: ((pause: Pause) => void) | undefined;
  /** Gets advice why reports may be worth nothing: `kind` and a sentence with the figures. */
  readonly onAdvice?: ((advice: Warning) => void) | undefined;
}

/** How many tasks were solved, so that the bridge can tell a report rate. */
export interface TaskNote {
  /** The vendor's name of the type. */
  readonly taskType: string;
  /** Default 1. */
  readonly count?: number | null | undefined;
  /** What they cost together, in US dollars; a string is taken for a number. */
  readonly cost?: number | string | null | undefined;
  readonly clientKey?: string | null | undefined;
}

const NOTE_TASKS = "bridge.noteTasks";
const RESTART_OPTIONS: Readonly<Record<keyof RestartPolicy, Rule>> = { firstDelayMs: MILLISECONDS, maxDelayMs: MILLISECONDS };
const RESTART: Rule = [
  "true, false, or an object of firstDelayMs and maxDelayMs",
  (value) => typeof value === "boolean" || isRecord(value),
];
const START_OPTIONS: Readonly<Record<keyof BridgeOptions, Rule>> = {
  path: TEXT,
  args: TEXTS,
  env: VARIABLES,
  sandbox: FLAG,
  url: TEXT,
  ledger: TEXT,
  keyFile: TEXT,
  clientKey: TEXT,
  timeoutMs: MILLISECONDS,
  startTimeoutMs: MILLISECONDS,
  closeTimeoutMs: MILLISECONDS,
  drainTimeoutMs: MILLISECONDS,
  restart: RESTART,
  onStderr: CALLBACK,
  onProtocolError: CALLBACK,
  onPause: CALLBACK,
  onAdvice: CALLBACK,
};
const CALL_OPTIONS: Readonly<Record<keyof CallOptions, Rule>> = {
  timeoutMs: MILLISECONDS,
  signal: ["an AbortSignal, such as the signal of an AbortController", isSignal],
};

/** A bridge process. Calls may be made at the same time, and in any number. */
export class Bridge implements AsyncDisposable {
  readonly #options: BridgeOptions;
  readonly #watch: Watch;
  readonly #notes: Notes;
  #connection: Connection;
  #deaths = 0;
  #protocolErrors = 0;
  #closing: Promise<void> | null = null;

  private constructor(options: BridgeOptions) {
    this.#options = options;
    this.#watch = new Watch(options);
    this.#connection = this.#connect(0, 1);
    this.#notes = new Notes((note) => {
      this.#aliveConnection().channel.notify(NOTE_TASKS, tidyParams(note) ?? {});
    });
  }

  /**
   * Starts a bridge and waits until it answers. Rejects, when what was started is gone, with BridgeNotFoundError,
   * BridgeDownError (which has its exit code and last words), CallTimeoutError or TypeError (an option that cannot be).
   */
  static async start(options?: BridgeOptions): Promise<Bridge> {
    const known = readOptions(options, START_OPTIONS, "Bridge.start");
    if (typeof known.restart === "object") readOptions(known.restart, RESTART_OPTIONS, "restart");
    const bridge = new Bridge(known);
    try {
      await bridge.#connection.ready;
    } catch (error) {
      await bridge.close(); // nobody else could: the program may end at once, and leave the child behind
      throw error;
    }
    return bridge;
  }

  /** Says that the text or the points of a solved image task were wrong. */
  reportIncorrectImageCaptcha(params: ReportParams, options?: CallOptions): Promise<ReportResult> {
    return this.#call("reportIncorrectImageCaptcha", params, options);
  }

  /** Says that the token of a solved reCAPTCHA task was refused. */
  reportIncorrectRecaptcha(params: ReportParams, options?: CallOptions): Promise<ReportResult> {
    return this.#call("reportIncorrectRecaptcha", params, options);
  }

  /** Says that the token of a solved reCAPTCHA V3 or Enterprise task was accepted. */
  reportCorrectRecaptcha(params: ReportParams, options?: CallOptions): Promise<ReportResult> {
    return this.#call("reportCorrectRecaptcha", params, options);
  }

  /** Says that the token of a solved hCaptcha task was refused. */
  reportIncorrectHcaptcha(params: ReportParams, options?: CallOptions): Promise<ReportResult> {
    return this.#call("reportIncorrectHcaptcha", params, options);
  }

  /**
   * A solved task as a value with `reportWrong` and `reportRight`. Make it once for each task, right when its
   * result came: that also tells the bridge that a task was solved. Throws TypeError.
   */
  task(facts: TaskFacts): Task {
    return new Task(this, facts);
  }

  /**
   * Tells how many tasks were solved: call it for each, reported or not. Nothing is sent to the vendor, and
   * nothing comes back, unless `answered` asks for it. The notes of a second go to the bridge as one, before the
   * next call at the latest. Those that a dead bridge had are lost.
   */
  noteTasks(note: TaskNote): void;
  noteTasks(note: TaskNote, options: CallOptions & { readonly answered: true }): Promise<void>;
  noteTasks(note: TaskNote, options?: CallOptions & { readonly answered: true }): Promise<void> | void {
    const { taskType } = note;
    const [count, clientKey] = [note.count ?? undefined, note.clientKey ?? undefined];
    if (typeof taskType !== "string" || taskType === "") throw new TypeError("taskType must be a string.");
    if (count !== undefined && (!Number.isSafeInteger(count) || count < 1)) {
      throw new TypeError("count must be a whole number from 1 on.");
    }
    const params = { taskType, count, cost: readNumber("cost", note.cost), clientKey };
    if (options === undefined || options === null) {
      if (this.#closing === null) this.#notes.add(params);
      return;
    }
    const { answered, ...rest } = options;
    return this.#ask(NOTE_TASKS, params, rest).then(() => undefined);
  }

  /** Who answers, and within which limits. */
  info(options?: CallOptions): Promise<BridgeInfo> {
    return this.#call("bridge.info", undefined, options);
  }

  /** What happened since the bridge started, and what holds now. */
  status(options?: CallOptions): Promise<BridgeStatus> {
    return this.#call("bridge.status", undefined, options);
  }

  /** What the ledger knows of a task's report; BridgeCallError `report_not_found` if nothing. */
  getReport(params: GetReportParams, options?: CallOptions): Promise<ReportRecord> {
    return this.#call("bridge.getReport", params, options);
  }

  /** The reports that the ledger knows, newest first, in pages. */
  listReports(params?: ListReportsParams, options?: CallOptions): Promise<ListReportsResult> {
    return this.#call("bridge.listReports", params, options);
  }

  /** Lets the next report probe whether a pause is over. */
  resume(params?: ResumeParams, options?: CallOptions): Promise<ResumeResult> {
    return this.#call("bridge.resume", params, options);
  }

  /** The OpenRPC document. */
  discover(options?: CallOptions): Promise<OpenRpcDocument> {
    return this.#call("rpc.discover", undefined, options);
  }

  /** Process id of the child; undefined while there is none. */
  get pid(): number | undefined {
    return this.#connection.pid;
  }

  /** `down`: the child is gone. With `restart` the next call starts another. */
  get state(): "running" | "down" | "closing" | "closed" {
    if (this.#closing === null) return this.#connection.isDown ? "down" : "running";
    return this.#connection.isDown ? "closed" : "closing";
  }

  /** Calls that wait for an answer. */
  get openCalls(): number {
    return this.#connection.channel.openCalls;
  }

  /** How much came in that fits no call. Not 0: look at onProtocolError. */
  get protocolErrors(): number {
    return this.#protocolErrors;
  }

  /**
   * Ends the bridge: no new calls, the reports it has accepted end and are answered, then it exits. If it
   * does not, SIGTERM, then SIGKILL to its whole process group. Never rejects; may be called again.
   */
  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** What console.log shows: nothing of the options, which may hold the key. */
  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return `Bridge { state: '${this.state}', pid: ${this.pid}, openCalls: ${this.openCalls} }`;
  }

  #call<M extends keyof Methods>(
    method: M,
    params: Methods[M]["params"] | undefined,
    options?: CallOptions,
  ): Promise<Methods[M]["result"]> {
    return this.#ask(method, params, options) as Promise<Methods[M]["result"]>;
  }

  async #ask(method: string, params: object | undefined, options?: CallOptions): Promise<unknown> {
    const tidy = tidyParams(params);
    const known = readOptions(options, CALL_OPTIONS, "The call");
    const timeoutMs = known.timeoutMs ?? this.#options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    if (this.#closing !== null) {
      const taskId = typeof tidy?.["taskId"] === "number" ? tidy["taskId"] : null;
      throw new BridgeDownError("the bridge was closed", { method, taskId, written: false }, this.#connection.evidence);
    }
    try {
      this.#notes.flush();
      const result = await this.#aliveConnection().channel.request(method, tidy, { ...known, timeoutMs });
      this.#watch.look(result);
      return result;
    } catch (error) {
      if (error instanceof ReportError) this.#watch.look(error.data);
      throw error;
    }
  }

  /** The connection; with `restart` another one if the last one died. */
  #aliveConnection(): Connection {
    if (this.#connection.isDown && this.#restart !== null) this.#reconnect(this.#restart);
    return this.#connection;
  }

  get #restart(): RestartPolicy | null {
    const { restart } = this.#options;
    return restart === true ? {} : restart === false || restart === undefined ? null : restart;
  }

  #reconnect(policy: RestartPolicy): void {
    const dead = this.#connection;
    this.#deaths = dead.servedMs >= HEALTHY_MS ? 1 : this.#deaths + 1;
    const delayMs = Math.min(policy.maxDelayMs ?? 10_000, MAX_TIMER_MS, (policy.firstDelayMs ?? 100) * 2 ** (this.#deaths - 1));
    this.#connection = this.#connect(delayMs, dead.channel.nextId);
    this.#connection.channel.maxRequestBytes = dead.channel.maxRequestBytes;
  }

  #connect(delayMs: number, firstId: number): Connection {
    const options = this.#options;
    return new Connection({
      command: options,
      delayMs,
      firstId,
      startTimeoutMs: options.startTimeoutMs ?? DEFAULT_START_TIMEOUT_MS,
      closeTimeoutMs: options.closeTimeoutMs ?? DEFAULT_TIMEOUT_MS,
      drainTimeoutMs: options.drainTimeoutMs ?? null,
      onStderr: (line) => notify(options.onStderr, line),
      onTrouble: (trouble) => {
        this.#protocolErrors += 1;
        notify(options.onProtocolError, trouble);
      },
    });
  }

  async #close(): Promise<void> {
    // The child and its timers do not keep Node alive; this does, until the child is gone.
    const hold = setInterval(() => undefined, 2 ** 30);
    try {
      if (!this.#connection.isDown) this.#notes.flush();
      await this.#connection.end();
    } finally {
      clearInterval(hold);
    }
  }
}

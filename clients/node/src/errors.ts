/** Every error that this package throws, apart from TypeError for wrong arguments. */

import type { ErrorKind, Hint, Outcome, ProtocolErrorData, ReportErrorData, ReportMethod } from "./generated.js";

/** A kind of `errors.json`; a bridge newer than this package may say others. */
export type Kind = ErrorKind | (string & {});

/** Base of all errors of this package: `catch (e) { if (e instanceof BridgeError) … }`. */
export class BridgeError extends Error {
  override name = "BridgeError";
}

/** The report was answered, and not accepted. */
export class ReportError extends BridgeError {
  override name = "ReportError";
  /** Positive: the upstream's `errorId`. Negative: JSON-RPC or the bridge. */
  readonly code: number;
  readonly kind: Kind;
  /** `refused`, `not_sent` or `unknown`; for `task_conflict` that of the other report, or null. */
  readonly outcome: Outcome | null;
  /** True only if nothing was sent and the same call may help now. */
  readonly retryable: boolean;
  /** Possible reasons, the most likely first. */
  readonly hints: readonly Hint[];
  /** Everything the bridge said. */
  readonly data: ReportErrorData;
  /** The wire's method; for a task that has none, that of the handle. */
  readonly method: ReportMethod | "reportWrong" | "reportRight";
  readonly taskId: number | null;

  constructor(call: CallFacts, code: number, message: string, data: ReportErrorData) {
    super(`${describeCall(call)}: ${message} (${data.kind})`);
    this.code = code;
    this.kind = data.kind;
    this.outcome = data.outcome;
    this.retryable = data.retryable === true;
    this.hints = data.hints ?? [];
    this.data = data;
    this.method = call.method as ReportMethod;
    this.taskId = call.taskId;
  }
}

/** The bridge answered with an error that is not about a report: wrong params, report not found … */
export class BridgeCallError extends BridgeError {
  override name = "BridgeCallError";
  readonly code: number;
  readonly kind: Kind;
  /** Which rule was broken: a JSON Schema keyword for params, else a word of the bridge; null if it said none. */
  readonly rule: string | null;
  /** A name of the bridge's own that was perhaps meant; null if none is near. */
  readonly suggestion: string | null;
  readonly data: ProtocolErrorData;
  readonly method: string;
  readonly taskId: number | null;

  constructor(call: CallFacts, code: number, message: string, data: ProtocolErrorData) {
    const { rule, sentence, suggestion }: { rule?: unknown; sentence?: unknown; suggestion?: unknown } = data;
    const detail = typeof sentence === "string" ? ` ${sentence}` : "";
    const meant = typeof suggestion === "string" ? ` Did you mean ${suggestion}?` : "";
    super(`${describeCall(call)}: ${message}${detail}${meant} (${data.kind})`);
    this.code = code;
    this.kind = data.kind;
    this.rule = typeof rule === "string" ? rule : null;
    this.suggestion = typeof suggestion === "string" ? suggestion : null;
    this.data = data;
    this.method = call.method;
    this.taskId = call.taskId;
  }
}

/** What is known of the child process when a call ends without an answer. */
export interface Evidence {
  /** Null while it runs, or if a signal ended it. */
  readonly exitCode: number | null;
  readonly signal: string | null;
  /** Its last lines on stderr, the newest last, if it died; while it lives they are about other calls. */
  readonly stderr: readonly string[];
}

/** What a call is about; nothing of its other params, which may hold a key. */
export interface CallFacts {
  readonly method: string;
  readonly taskId: number | null;
  /** True if any of the request may have reached the bridge. */
  readonly written: boolean;
}

/** The call ended without an answer. One of the three classes below. */
export class UnansweredError extends BridgeError {
  override name = "UnansweredError";
  readonly method: string;
  readonly taskId: number | null;
  /**
   * For a report: `unknown` if the bridge may have got the request, `not_sent` if this call never
   * left this process. For any other call: null.
   */
  readonly outcome: "unknown" | "not_sent" | null;
  readonly exitCode: number | null;
  readonly signal: string | null;
  readonly stderr: readonly string[];

  constructor(reason: string, call: CallFacts, evidence: Evidence, options?: { readonly cause: unknown }) {
    super(describeUnanswered(reason, call, evidence), options);
    this.method = call.method;
    this.taskId = call.taskId;
    this.outcome = isReportMethod(call.method) ? (call.written ? "unknown" : "not_sent") : null;
    this.exitCode = evidence.exitCode;
    this.signal = evidence.signal;
    this.stderr = evidence.stderr;
  }
}

/** The bridge is gone, or could not be started. */
export class BridgeDownError extends UnansweredError {
  override name = "BridgeDownError";
}

/** No answer within the call's time-out. */
export class CallTimeoutError extends UnansweredError {
  override name = "CallTimeoutError";
}

/** The call's AbortSignal fired; `cause` is its reason. The name is what Node uses for aborts. */
export class CallAbortedError extends UnansweredError {
  override name = "AbortError";
  readonly code = "ABORT_ERR";
}

/** What mends a program or a Python that is missing; the commands are those of README.md. */
export const INSTALL =
  "To install it from the project's folder, here ~/report-bridge, with Python 3.11 or newer:\n" +
  "  python3 -m venv ~/.report-bridge && ~/.report-bridge/bin/pip install ~/report-bridge\n" +
  '  export PATH="$HOME/.report-bridge/bin:$PATH"\n' +
  "The second line is needed in every shell, unless REPORT_BRIDGE_BIN or the option path is the whole path of the program.\n" +
  "For other machines `make dist` in that folder writes a wheel, and for Linux x64 an npm package that needs no Python.";

/** There is no bridge to start. */
export class BridgeNotFoundError extends BridgeError {
  override name = "BridgeNotFoundError";
  /** Every place that was looked at. */
  readonly tried: readonly string[];

  constructor(tried: readonly string[]) {
    const places = tried.map((place) => `\n  ${place}`).join("");
    super(`report-bridge was not found. Looked at:${places}\n${INSTALL}`);
    this.tried = tried;
  }
}

const REPORT_METHODS: Readonly<Record<ReportMethod, true>> = {
  reportIncorrectImageCaptcha: true,
  reportIncorrectRecaptcha: true,
  reportCorrectRecaptcha: true,
  reportIncorrectHcaptcha: true,
};

export function isReportMethod(method: string): method is ReportMethod {
  return Object.hasOwn(REPORT_METHODS, method);
}

/** Turns the member `error` of an answer into the error to throw; null if it is not well formed. */
export function errorFromAnswer(call: CallFacts, error: unknown): ReportError | BridgeCallError | null {
  if (!isRecord(error)) return null;
  const { code, message, data } = error;
  if (typeof code !== "number" || typeof message !== "string") return null;
  const known: Record<string, unknown> = isRecord(data) ? data : {};
  if (typeof known["kind"] !== "string") known["kind"] = "unknown_code";
  if (isReportMethod(call.method) && "outcome" in known) {
    return new ReportError(call, code, message, known as unknown as ReportErrorData);
  }
  return new BridgeCallError(call, code, message, known as unknown as ProtocolErrorData);
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function describeCall(call: CallFacts): string {
  return call.taskId === null ? call.method : `${call.method} of task ${call.taskId}`;
}

function describeUnanswered(reason: string, call: CallFacts, evidence: Evidence): string {
  const { exitCode, signal, stderr } = evidence;
  const ending = signal !== null ? ` (signal ${signal})` : exitCode !== null ? ` (exit code ${exitCode})` : "";
  const last = stderr.at(-1);
  return `${describeCall(call)}: ${reason}${ending}${last === undefined ? "" : `; last on stderr: ${last}`}`;
}

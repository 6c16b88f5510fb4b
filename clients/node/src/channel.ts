/**
 * JSON-RPC over "write this line" and "these bytes arrived". There is no process in it, so it can be
 * tested with plain values; `connection.ts` joins it to a child.
 */

import { onAbort } from "./aborts.js";
import {
  BridgeCallError,
  BridgeDownError,
  CallAbortedError,
  CallTimeoutError,
  errorFromAnswer,
  isRecord,
  type CallFacts,
  type Evidence,
} from "./errors.js";
import { ERRORS } from "./generated.js";
import { LineSplitter } from "./lines.js";
import { MAX_TIMER_MS } from "./options.js";

/** Longer than any answer: 1,000 records of bridge.listReports are about 300 KB. */
const MAX_LINE_BYTES = 8 * 1024 * 1024;
/** Ids of calls given up whose answers may still come; the oldest are forgotten first. */
const MAX_ABANDONED = 10_000;
/** Notifications that wait while the bridge does not read; more are dropped, so that memory stays flat. */
const MAX_WAITING_NOTICES = 10_000;

/** Something came in that no call can use. It does no harm; it is counted and told. */
export interface ProtocolTrouble {
  readonly kind: "not_json" | "not_an_answer" | "unknown_id" | "answered_twice" | "error_without_id" | "line_too_long";
  /** At most 200 characters of the line. */
  readonly excerpt: string;
}

export interface CallOptions {
  /** How long to wait for the answer; 0 or Infinity: without end. Default 75,000 ms. */
  readonly timeoutMs?: number | undefined;
  /** Aborting rejects the call at once, and lets go of the report if it has not begun. */
  readonly signal?: AbortSignal | undefined;
}

export interface ChannelPorts {
  /** Writes one line, LF included. False means: stop until `uncork` is called. */
  write(line: string): boolean;
  /** What to put into the error of a call that ends without an answer. */
  evidence(): Evidence;
  /** Called when the number of open calls changes from 0 or to 0. */
  onBusy(busy: boolean): void;
  onTrouble(trouble: ProtocolTrouble): void;
}

interface Outgoing {
  readonly line: string;
  readonly facts: { method: string; taskId: number | null; written: boolean };
}

interface Call extends Outgoing {
  readonly id: number;
  resolve(value: unknown): void;
  reject(error: Error): void;
  /** Stops the timer and forgets the signal. */
  release(): void;
}

/** Starts corked: calls wait until `uncork`, except urgent ones. */
export class Channel {
  readonly #ports: ChannelPorts;
  readonly #lines: LineSplitter;
  readonly #open = new Map<number, Call>();
  readonly #unwritten = new Set<Outgoing>();
  readonly #abandoned = new Set<number>();
  /** The longest request that the other side takes, without the line's end; of a longer one it cannot say whose it was. */
  maxRequestBytes = Infinity;
  #nextId: number;
  #corked = true;
  #downReason: string | null = null;
  #onFlushed: (() => void) | null = null;

  constructor(ports: ChannelPorts, firstId = 1) {
    this.#ports = ports;
    this.#nextId = firstId;
    this.#lines = new LineSplitter({
      maxBytes: MAX_LINE_BYTES,
      onLine: (line) => this.#onLine(line),
      onTooLong: () => ports.onTrouble({ kind: "line_too_long", excerpt: "" }),
    });
  }

  get openCalls(): number {
    return this.#open.size;
  }

  /** The id the next request gets: a channel that takes over goes on counting there. */
  get nextId(): number {
    return this.#nextId;
  }

  /** Sends a request. `urgent` passes the queue and the cork. */
  request(
    method: string,
    params: Readonly<Record<string, unknown>> | undefined,
    options: CallOptions & { readonly timeoutMs: number; readonly urgent?: boolean },
  ): Promise<unknown> {
    const taskId = params?.["taskId"];
    const facts = { method, taskId: typeof taskId === "number" ? taskId : null, written: false };
    const { signal, timeoutMs } = options;
    if (this.#downReason !== null) return Promise.reject(this.#downError(facts));
    if (signal?.aborted === true) return Promise.reject(this.#abortError(facts, signal));
    const id = this.#nextId++;
    const line = `${JSON.stringify({ jsonrpc: "2.0", id, method, params })}\n`;
    const bytes = Buffer.byteLength(line) - 1;
    if (bytes > this.maxRequestBytes) return Promise.reject(this.#tooLargeError(facts, bytes));

    return new Promise((resolve, reject) => {
      const release = (): void => {
        clearTimeout(timer);
        forget?.();
      };
      const call: Call = { id, line, facts, resolve, reject, release };
      // A signal that is odd throws here: before the timer, which would fire for a call that never was.
      const forget = signal && onAbort(signal, () => this.#giveUp(call, this.#abortError(facts, signal)));
      const onTimeout = (): void => this.#giveUp(call, this.#timeoutError(facts, timeoutMs));
      const timer = timeoutMs > 0 && timeoutMs <= MAX_TIMER_MS ? setTimeout(onTimeout, timeoutMs) : undefined;
      this.#open.set(id, call);
      if (this.#open.size === 1) this.#ports.onBusy(true);
      if (options.urgent === true) this.#write(call);
      else this.#unwritten.add(call);
      this.#flush();
    });
  }

  /** Sends a notification, which has no answer. */
  notify(method: string, params: Readonly<Record<string, unknown>>): void {
    if (this.#downReason !== null || this.#unwritten.size >= MAX_WAITING_NOTICES) return;
    const line = `${JSON.stringify({ jsonrpc: "2.0", method, params })}\n`;
    this.#unwritten.add({ line, facts: { method, taskId: null, written: false } });
    this.#flush();
  }

  /** Bytes arrived. */
  receive(chunk: Buffer): void {
    this.#lines.push(chunk);
  }

  /** No more bytes will arrive. */
  receiveEnd(): void {
    this.#lines.end();
  }

  /** The other side can take more. */
  uncork(): void {
    this.#corked = false;
    this.#flush();
  }

  /** Calls back once, as soon as every request is written or given up. */
  whenFlushed(callback: () => void): void {
    this.#onFlushed = callback;
    this.#flush();
  }

  /** The other side is gone: every open call, and every later one, fails. */
  fail(reason: string): void {
    this.#downReason ??= reason;
    const calls = [...this.#open.values()];
    for (const call of calls) {
      this.#settle(call);
      call.reject(this.#downError(call.facts));
    }
    this.#unwritten.clear();
    this.#flush();
  }

  #write(outgoing: Outgoing): void {
    outgoing.facts.written = true;
    if (!this.#ports.write(outgoing.line)) this.#corked = true;
  }

  #flush(): void {
    for (const outgoing of this.#unwritten) {
      if (this.#corked) return;
      this.#unwritten.delete(outgoing);
      this.#write(outgoing);
    }
    if (this.#unwritten.size > 0) return;
    const callback = this.#onFlushed;
    this.#onFlushed = null;
    callback?.();
  }

  #settle(call: Call): void {
    call.release();
    this.#unwritten.delete(call);
    this.#open.delete(call.id);
    if (this.#open.size === 0) this.#ports.onBusy(false);
  }

  #giveUp(call: Call, error: Error): void {
    if (call.facts.written) {
      this.#abandoned.add(call.id);
      const [oldest] = this.#abandoned;
      if (this.#abandoned.size > MAX_ABANDONED && oldest !== undefined) this.#abandoned.delete(oldest);
      const cancel = { jsonrpc: "2.0", method: "$/cancelRequest", params: { id: call.id } };
      if (!this.#ports.write(`${JSON.stringify(cancel)}\n`)) this.#corked = true;
    }
    this.#settle(call);
    call.reject(error);
    this.#flush();
  }

  #onLine(line: string): void {
    let message: unknown;
    try {
      message = JSON.parse(line);
    } catch {
      this.#trouble("not_json", line);
      return;
    }
    for (const answer of Array.isArray(message) ? message : [message]) this.#onAnswer(answer, line);
  }

  #onAnswer(answer: unknown, line: string): void {
    if (!isRecord(answer) || "method" in answer || "result" in answer === "error" in answer) {
      this.#trouble("not_an_answer", line);
      return;
    }
    const { id } = answer;
    if (typeof id !== "number") {
      this.#trouble(id === null && "error" in answer ? "error_without_id" : "unknown_id", line);
      return;
    }
    const call = this.#open.get(id);
    if (call === undefined || !call.facts.written) {
      // The late answer to a call that was given up is what the protocol asks for.
      if (this.#abandoned.delete(id)) return;
      const wasAsked = Number.isInteger(id) && id > 0 && id < this.#nextId && call === undefined;
      this.#trouble(wasAsked ? "answered_twice" : "unknown_id", line);
      return;
    }
    if ("result" in answer) {
      this.#settle(call);
      call.resolve(answer["result"]);
      return;
    }
    const error = errorFromAnswer(call.facts, answer["error"]);
    if (error === null) {
      this.#trouble("not_an_answer", line);
      return;
    }
    this.#settle(call);
    call.reject(error);
  }

  #trouble(kind: ProtocolTrouble["kind"], line: string): void {
    this.#ports.onTrouble({ kind, excerpt: line.slice(0, 200) });
  }

  #downError(facts: CallFacts): Error {
    return new BridgeDownError(this.#downReason ?? "the bridge is down", facts, this.#ports.evidence());
  }

  #tooLargeError(facts: CallFacts, bytes: number): Error {
    const reason = `Nothing was sent: the request has ${bytes} bytes, and the bridge takes ${this.maxRequestBytes}.`;
    return new BridgeCallError(facts, ERRORS.invalid_request.code, reason, { kind: "invalid_request", rule: "message_too_large" });
  }

  #abortError(facts: CallFacts, signal: AbortSignal): Error {
    return new CallAbortedError("aborted by the caller", facts, this.#ports.evidence(), { cause: signal.reason });
  }

  #timeoutError(facts: CallFacts, timeoutMs: number): Error {
    return new CallTimeoutError(`no answer within ${timeoutMs} ms`, facts, this.#ports.evidence());
  }
}

/** The only module that starts a process. Knows nothing of JSON-RPC. */

import { spawn, type ChildProcessWithoutNullStreams } from "node:child_process";
import type { Socket } from "node:net";

import { explainFailedStart, type Command } from "./command.js";
import { LineSplitter } from "./lines.js";
import { MAX_TIMER_MS } from "./options.js";

/** How long the exit may trail the end of stdout, or the other way round, before it counts alone. */
const LAST_BYTES_MS = 500;
/** Longest line kept of stderr; the bridge's own are far shorter. */
const MAX_STDERR_LINE_BYTES = 8 * 1024;

export interface ChildEvents {
  onOutput(chunk: Buffer): void;
  onOutputEnd(): void;
  onStderrLine(line: string): void;
  /** stdin can take more. */
  onDrain(): void;
  /** Called once, when no further answer can come: both exit and end of stdout, or one of them and a short wait. */
  onDown(reason: string): void;
}

/** A running child, in a process group of its own, that does not keep Node alive unless `ref` is called. */
export class Child {
  readonly #process: ChildProcessWithoutNullStreams;
  readonly #events: ChildEvents;
  /** Resolves when the process is gone, and stdout and stderr are at their end. */
  readonly closed: Promise<void>;
  #isClosed = false;
  #outputEnded = false;
  #isDown = false;
  #downTimer: NodeJS.Timeout | undefined;
  #holdsDown = false;

  constructor(command: Command, events: ChildEvents) {
    this.#events = events;
    const child = spawn(command.file, [...command.args], {
      env: command.env,
      stdio: ["pipe", "pipe", "pipe"],
      shell: false,
      windowsHide: true,
      // A group of its own: Ctrl-C reaches the parent alone, which decides; and the whole tree can be killed.
      detached: process.platform !== "win32",
    });
    this.#process = child;
    if ((child.stdin as unknown) === undefined) {
      child.on("error", () => undefined);
      throw new Error("the bridge could not be started: no file descriptors are left");
    }
    const stderr = new LineSplitter({
      maxBytes: MAX_STDERR_LINE_BYTES,
      onLine: (line) => events.onStderrLine(line),
      onTooLong: () => events.onStderrLine("(a line that was too long)"),
    });
    child.stdout.on("data", (chunk: Buffer) => events.onOutput(chunk));
    child.stderr.on("data", (chunk: Buffer) => stderr.push(chunk));
    child.stderr.on("end", () => stderr.end());
    child.stdin.on("drain", () => events.onDrain());
    child.stdout.on("end", () => {
      this.#outputEnded = true;
      events.onOutputEnd();
      this.#perhapsDown("the bridge closed its output");
    });
    // EPIPE: the child no longer reads. Its exit usually follows at once and says more.
    child.stdin.on("error", () => this.#perhapsDown("the bridge closed its input"));
    child.stdout.on("error", () => this.#perhapsDown("the bridge's output broke"));
    child.stderr.on("error", () => undefined);
    child.on("exit", () => this.#perhapsDown("the bridge ended"));
    this.closed = new Promise((resolve) => {
      const onClosed = (): void => {
        this.#isClosed = true;
        resolve();
      };
      child.on("close", onClosed);
      child.on("error", (error: NodeJS.ErrnoException) => {
        if (child.pid !== undefined) return; // a signal could not be delivered
        this.#goDown(explainFailedStart(command.file, error.code ?? "unknown reason"));
        onClosed();
      });
    });
    this.unref();
  }

  get pid(): number | undefined {
    return this.#process.pid;
  }

  get exitCode(): number | null {
    return this.pid === undefined ? null : this.#process.exitCode;
  }

  get signal(): string | null {
    return this.#process.signalCode;
  }

  /** False: wait for onDrain. What cannot be written any more is dropped; onDown follows. */
  write(line: string): boolean {
    const { stdin } = this.#process;
    return stdin.writable ? stdin.write(line) : true;
  }

  endInput(): void {
    // From here on the end of the process is expected: its last answers may take their time.
    this.#holdsDown = true;
    clearTimeout(this.#downTimer);
    if (!this.#process.stdin.destroyed) this.#process.stdin.end();
    if (this.#hasEnded && this.#outputEnded) this.#goDown("the bridge ended");
  }

  ref(): void {
    this.#process.ref();
    for (const pipe of this.#pipes) pipe.ref();
  }

  unref(): void {
    this.#process.unref();
    for (const pipe of this.#pipes) pipe.unref();
  }

  /** Sends the signal to the child and everything it has started. */
  kill(signal: "SIGTERM" | "SIGKILL"): void {
    const { pid } = this.#process;
    if (pid === undefined || this.#isClosed) return;
    if (process.platform === "win32") {
      spawn("taskkill", ["/pid", String(pid), "/T", "/F"], { stdio: "ignore", windowsHide: true }).on("error", () =>
        this.#process.kill(signal),
      );
      return;
    }
    try {
      process.kill(-pid, signal);
    } catch {
      this.#process.kill(signal);
    }
  }

  /** Resolves to true if the child is closed within the time, to false if not; Infinity: without end. Does not keep Node alive. */
  async closesWithin(timeoutMs: number): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<boolean>((resolve) => {
      if (timeoutMs <= MAX_TIMER_MS) timer = setTimeout(() => resolve(false), timeoutMs).unref();
    });
    const inTime = await Promise.race([this.closed.then(() => true), late]);
    clearTimeout(timer);
    return inTime;
  }

  get #pipes(): Socket[] {
    const { stdin, stdout, stderr } = this.#process;
    return [stdin, stdout, stderr] as unknown as Socket[];
  }

  get #hasEnded(): boolean {
    return this.#process.exitCode !== null || this.#process.signalCode !== null;
  }

  #perhapsDown(reason: string): void {
    if (this.#isDown) return;
    if (this.#hasEnded && this.#outputEnded) return this.#goDown(reason);
    if (this.#holdsDown) return;
    this.#downTimer ??= setTimeout(() => this.#goDown(reason), LAST_BYTES_MS);
  }

  #goDown(reason: string): void {
    if (this.#isDown) return;
    this.#isDown = true;
    clearTimeout(this.#downTimer);
    this.#events.onDown(reason);
  }
}

/** One life of a child with its channel: start, handshake, reference counting, death, orderly end. */

import { Channel, type ProtocolTrouble } from "./channel.js";
import { buildCommand, type CommandOptions } from "./command.js";
import { BridgeDownError, BridgeError, CallTimeoutError, type Evidence } from "./errors.js";
import type { BridgeInfo } from "./generated.js";
import { Child } from "./process.js";

/** Version of the wire protocol that this package speaks. */
const PROTOCOL = 1;
const KEPT_STDERR_LINES = 20;
const UNPROVEN_CLOSE_MS = 1_000;
/** The default drain of 8 s, and 2 s more. */
const DEFAULT_DRAIN_MS = 10_000;

export interface ConnectionOptions {
  readonly command: CommandOptions;
  /** How long to wait before the child is started. */
  readonly delayMs: number;
  readonly firstId: number;
  readonly startTimeoutMs: number;
  readonly closeTimeoutMs: number;
  /** How long SIGTERM may take; null: what bridge.info says, and 2 s more. */
  readonly drainTimeoutMs: number | null;
  onStderr(line: string): void;
  onTrouble(trouble: ProtocolTrouble): void;
}

export class Connection {
  readonly channel: Channel;
  /** What the bridge said of itself; rejects if it could not be started. */
  readonly ready: Promise<BridgeInfo>;
  readonly #options: ConnectionOptions;
  readonly #stderr: string[] = [];
  #child: Child | null = null;
  #readyAt: number | null = null;
  #drainMs: number;
  #isDown = false;
  #isClosing = false;
  #handshakeDone = false;
  #cancelDelay: () => void = () => undefined;
  #ending: Promise<void> | null = null;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.#drainMs = options.drainTimeoutMs ?? DEFAULT_DRAIN_MS;
    this.channel = new Channel(
      {
        write: (line) => this.#child?.write(line) ?? true,
        evidence: () => this.evidence,
        onBusy: (busy) => (busy ? this.#child?.ref() : this.#child?.unref()),
        onTrouble: (trouble) => options.onTrouble({ ...trouble, excerpt: this.#hideKey(trouble.excerpt) }),
      },
      options.firstId,
    );
    this.ready = this.#start();
    this.ready.catch(() => undefined); // whoever needs it awaits it; calls fail on their own
  }

  get isDown(): boolean {
    return this.#isDown;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** How long it served, from the handshake until now. */
  get servedMs(): number {
    return this.#readyAt === null ? 0 : performance.now() - this.#readyAt;
  }

  get evidence(): Evidence {
    const exitCode = this.#child?.exitCode ?? null;
    const hasDied = this.#isDown && !(this.#isClosing && exitCode === 0);
    return { exitCode, signal: this.#child?.signal ?? null, stderr: hasDied ? [...this.#stderr] : [] };
  }

  /**
   * Ends the input, waits for what was accepted; then SIGTERM, then SIGKILL. Always resolves, but does
   * not keep Node alive meanwhile.
   */
  end(): Promise<void> {
    if (!this.#isDown) this.#isClosing = true;
    return (this.#ending ??= this.#end());
  }

  async #start(): Promise<BridgeInfo> {
    try {
      if (this.#options.delayMs > 0) await this.#delay(this.#options.delayMs);
      if (this.#isDown) throw new BridgeDownError("the bridge was closed", HANDSHAKE, this.evidence);
      const command = buildCommand(this.#options.command);
      this.#child = new Child(command, {
        onOutput: (chunk) => this.channel.receive(chunk),
        onOutputEnd: () => this.channel.receiveEnd(),
        onStderrLine: (line) => this.#keep(this.#hideKey(line)),
        onDrain: () => this.#handshakeDone && this.channel.uncork(),
        onDown: (reason) => this.#goDown(reason),
      });
      if (this.channel.openCalls > 0) this.#child.ref();
      const timeoutMs = this.#options.startTimeoutMs;
      const request = this.channel.request("bridge.info", undefined, { timeoutMs, urgent: true });
      const info = (await request.catch((error: unknown) => {
        if (!(error instanceof CallTimeoutError)) throw error;
        const reason = `no answer from ${command.file} within ${timeoutMs} ms; is it report-bridge?`;
        throw new CallTimeoutError(reason, HANDSHAKE, { ...this.evidence, stderr: [...this.#stderr] });
      })) as BridgeInfo;
      if (info?.protocol !== PROTOCOL) {
        throw new BridgeError(`the bridge speaks protocol ${String(info?.protocol)}, this package ${PROTOCOL}`);
      }
      if (typeof info.limits?.maxMessage === "number") this.channel.maxRequestBytes = info.limits.maxMessage;
      this.#drainMs = this.#options.drainTimeoutMs ?? drainMs(info);
      this.#readyAt = performance.now();
      this.#handshakeDone = true;
      this.channel.uncork();
      return info;
    } catch (error) {
      this.#goDown(error instanceof Error ? error.message : "the bridge could not be started");
      void this.end();
      throw error;
    }
  }

  #delay(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, delayMs);
      this.#cancelDelay = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #goDown(reason: string): void {
    if (this.#isDown) return;
    this.#isDown = true;
    this.channel.fail(reason);
    if (this.#child !== null) void this.end();
  }

  async #end(): Promise<void> {
    const child = this.#child;
    if (child === null) {
      this.#goDown("the bridge was closed");
      this.#cancelDelay();
      return;
    }
    if (!this.#isDown) await this.ready.catch(() => undefined); // calls may wait for the handshake
    const flushed = new Promise<void>((resolve) => this.channel.whenFlushed(resolve));
    const started = performance.now();
    // Before the handshake nothing was accepted, so there is nothing to wait for.
    const closeMs = this.#handshakeDone ? this.#options.closeTimeoutMs : UNPROVEN_CLOSE_MS;
    await Promise.race([flushed, child.closesWithin(closeMs)]);
    child.endInput();
    const leftMs = Math.max(0, closeMs - (performance.now() - started));
    if (!(await child.closesWithin(leftMs))) {
      child.kill("SIGTERM");
      if (!(await child.closesWithin(this.#drainMs))) {
        child.kill("SIGKILL");
        await child.closesWithin(5_000);
      }
    }
    this.#goDown("the bridge was closed");
  }

  #keep(line: string): void {
    this.#stderr.push(line);
    if (this.#stderr.length > KEPT_STDERR_LINES) this.#stderr.shift();
    this.#options.onStderr(line);
  }

  #hideKey(text: string): string {
    const key = this.#options.command.clientKey;
    return key === undefined || key === "" ? text : text.replaceAll(key, "***");
  }
}

const HANDSHAKE = { method: "bridge.info", taskId: null, written: false };

function drainMs(info: BridgeInfo): number {
  const seconds: unknown = info.limits?.drainSeconds;
  return typeof seconds === "number" ? seconds * 1000 + 2_000 : DEFAULT_DRAIN_MS;
}

// What every client does with the bridge in these tests, and how the bridge is started for them.
import assert from "node:assert/strict";
import { spawn, type ChildProcessWithoutNullStreams } from "node:child_process";

export const PROGRAM = process.env["REPORT_BRIDGE_BIN"] ?? "report-bridge";
/** One slot, so that a second report waits and can be cancelled. */
export const ARGS = ["--sandbox", "--concurrency", "1"];

export const MAGIC = 9_000_000_000_000_000;
/** The simulator takes a second to answer these. */
export const SLOW_TASK = MAGIC + 1_001;
export const REFUSED_TASK = MAGIC + 16;

export const REPORT_METHODS = [
  "reportIncorrectImageCaptcha",
  "reportIncorrectRecaptcha",
  "reportCorrectRecaptcha",
  "reportIncorrectHcaptcha",
];

export type Call = (method: string, params?: object) => PromiseLike<unknown>;

export function startBridge(): ChildProcessWithoutNullStreams {
  const child = spawn(PROGRAM, ARGS, { stdio: ["pipe", "pipe", "pipe"] });
  child.stderr.resume();
  return child;
}

export async function endBridge(child: ChildProcessWithoutNullStreams): Promise<void> {
  const exit = new Promise<number | null>((resolve) => child.on("close", resolve));
  child.stdin.end();
  assert.equal(await exit, 0);
}

/** All four report methods, and the calls without params. */
export async function callEverything(call: Call): Promise<void> {
  for (const [index, method] of REPORT_METHODS.entries()) {
    const result = (await call(method, { taskId: index + 1 })) as Record<string, unknown>;
    assert.deepEqual([result["taskId"], result["outcome"]], [index + 1, "accepted"]);
  }
  const info = (await call("bridge.info")) as Record<string, unknown>;
  assert.equal(info["protocol"], 1);
}

/** A refusal arrives as the client's error, with code and data as the bridge wrote them. */
export async function callAndBeRefused(
  call: Call,
  read: (error: unknown) => { readonly code?: number; readonly data?: unknown },
): Promise<void> {
  const error = await failure(call("reportIncorrectImageCaptcha", { taskId: REFUSED_TASK }));
  const { code, data } = read(error);
  assert.equal(code, 16);
  assert.equal((data as { kind?: string }).kind, "no_such_captcha");
}

export async function failure(promise: PromiseLike<unknown>): Promise<unknown> {
  const outcome = await Promise.resolve(promise).then(
    (value) => ({ value }),
    (error: unknown) => ({ error }),
  );
  if ("error" in outcome) return outcome.error;
  throw new Error(`it did not fail: ${JSON.stringify(outcome.value)}`);
}

/** Waits until a report waits for the one slot. */
export async function waitUntilQueued(call: Call): Promise<void> {
  for (let tries = 0; tries < 500; tries += 1) {
    if (((await call("bridge.status")) as { queued: number }).queued === 1) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error("no report is waiting");
}

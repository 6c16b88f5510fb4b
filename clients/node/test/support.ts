import { fileURLToPath } from "node:url";

import { Bridge, type BridgeOptions } from "anticaptcha-report-bridge";

export const KEY = "c4n4ry0key0of0the0node0tests0000";

/** Starts a fake bridge that behaves in one chosen way. */
export function startFake(behaviour: string, options: BridgeOptions = {}): Promise<Bridge> {
  const script = fileURLToPath(new URL("fake-bridge.js", import.meta.url));
  return Bridge.start({ path: process.execPath, args: [script, behaviour], closeTimeoutMs: 2_000, ...options });
}

/** What the promise rejects with; throws if it does not, or not with an error of this class. */
export async function rejection<E extends Error>(
  promise: Promise<unknown>,
  type: new (...args: never[]) => E,
): Promise<E> {
  const outcome = await promise.then(
    (value) => ({ value, error: null }),
    (error: unknown) => ({ value: null, error }),
  );
  if (outcome.error instanceof type) return outcome.error;
  throw new Error(`expected ${type.name}, got ${JSON.stringify(outcome)} ${String(outcome.error)}`);
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

export async function waitUntil(condition: () => boolean | Promise<boolean>, timeoutMs = 15_000): Promise<void> {
  const end = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`not so within ${timeoutMs} ms: ${condition.toString()}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

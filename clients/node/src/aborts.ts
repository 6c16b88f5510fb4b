/** One listener per AbortSignal, however many calls share it: Node warns of a leak from the eleventh on. */

import { isRecord } from "./errors.js";

interface Watch {
  readonly callbacks: Set<() => void>;
  readonly listener: () => void;
}

const watches = new WeakMap<AbortSignal, Watch>();

/** True for an AbortSignal, whoever has made it; not for its controller. */
export function isSignal(value: unknown): value is AbortSignal {
  return (
    isRecord(value) &&
    typeof value["aborted"] === "boolean" &&
    [value["addEventListener"], value["removeEventListener"]].every((each) => typeof each === "function")
  );
}

/** Calls back when the signal aborts. Returns what takes the callback away again. */
export function onAbort(signal: AbortSignal, callback: () => void): () => void {
  const watch = watches.get(signal) ?? startWatch(signal);
  watch.callbacks.add(callback);
  return () => {
    watch.callbacks.delete(callback);
    if (watch.callbacks.size > 0 || watches.get(signal) !== watch) return;
    watches.delete(signal);
    signal.removeEventListener("abort", watch.listener);
  };
}

function startWatch(signal: AbortSignal): Watch {
  const callbacks = new Set<() => void>();
  const listener = (): void => {
    for (const callback of [...callbacks]) callback();
  };
  const watch = { callbacks, listener };
  signal.addEventListener("abort", listener, { once: true });
  watches.set(signal, watch);
  return watch;
}

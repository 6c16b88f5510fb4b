import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { Channel } from "#src/channel.js";
import { BridgeCallError, BridgeDownError, ReportError } from "#src/errors.js";
import { tidyParams } from "#src/params.js";

interface Step {
  readonly call?: string;
  readonly params?: object;
  readonly id?: number;
  readonly "-->"?: string;
  readonly "<--"?: string;
  readonly ends?: number;
  readonly value?: unknown;
  readonly error?: Record<string, unknown> & { readonly type: string };
  readonly cancel?: number;
  readonly cancelled?: boolean;
  readonly down?: boolean;
  readonly refused?: string;
}
interface Transcript {
  readonly name: string;
  readonly description: string;
  readonly steps: readonly Step[];
}

const FILE = new URL("../../../../../tests/vectors/transcripts/client-calls.json", import.meta.url);
const { transcripts } = JSON.parse(readFileSync(FILE, "utf8")) as { transcripts: Transcript[] };
const WIRE_NAMES: Record<string, string> = { discover: "rpc.discover" };
const ERROR_TYPES: Record<string, unknown> = { report: ReportError, protocol: BridgeCallError, down: BridgeDownError };

async function play(transcript: Transcript): Promise<void> {
  const written: string[] = [];
  const calls = new Map<number, { result: Promise<unknown>; abort: AbortController }>();
  const channel = new Channel({
    write: (line) => written.push(line) > 0,
    evidence: () => ({ exitCode: null, signal: null, stderr: [] }),
    onBusy: () => undefined,
    onTrouble: () => undefined,
  });
  channel.uncork();
  for (const step of transcript.steps) {
    if (step.call !== undefined) {
      const method = WIRE_NAMES[step.call] ?? (step.call.startsWith("report") ? step.call : `bridge.${step.call}`);
      const abort = new AbortController();
      const start = async (): Promise<unknown> =>
        channel.request(method, tidyParams(step.params), { timeoutMs: 0, signal: abort.signal });
      const result = start();
      result.catch(() => undefined);
      calls.set(step.id ?? 0, { result, abort });
    } else if (step["-->"] !== undefined) assert.equal(written.shift(), `${step["-->"]}\n`);
    else if (step["<--"] !== undefined) channel.receive(Buffer.from(`${step["<--"]}\n`));
    else if (step.down === true) channel.fail("gone");
    else if (step.cancel !== undefined) calls.get(step.cancel)?.abort.abort();
    else await checkEnd(step, calls.get(step.ends ?? 0)?.result);
  }
  assert.deepEqual(written, []);
}

async function checkEnd(step: Step, result: Promise<unknown> | undefined): Promise<void> {
  if ("value" in step) return assert.deepEqual(await result, step.value);
  const error: unknown = await result?.then(
    () => assert.fail("it did not fail"),
    (reason: unknown) => reason,
  );
  if (step.refused !== undefined) {
    assert.ok(error instanceof TypeError && error.message.startsWith(step.refused), String(error));
  } else if (step.cancelled === true) {
    assert.equal((error as Error).name, "AbortError");
  } else {
    const { type, ...fields } = step.error ?? { type: "" };
    assert.equal((error as object).constructor, ERROR_TYPES[type]);
    for (const [name, value] of Object.entries(fields)) {
      assert.deepEqual((error as Record<string, unknown>)[name], value, name);
    }
  }
}

for (const transcript of transcripts) {
  test(`${transcript.name}: ${transcript.description}`, () => play(transcript));
}

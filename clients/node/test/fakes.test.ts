import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { inspect } from "node:util";

import {
  Bridge,
  BridgeCallError,
  BridgeDownError,
  BridgeError,
  BridgeNotFoundError,
  CallAbortedError,
  CallTimeoutError,
  type ProtocolTrouble,
} from "anticaptcha-report-bridge";

import { isAlive, KEY, rejection, startFake, waitUntil } from "./support.js";

const PACKAGE = fileURLToPath(new URL("../../..", import.meta.url));
const report = (bridge: Bridge, taskId = 5, options = {}): Promise<{ taskId: number }> =>
  bridge.reportIncorrectRecaptcha({ taskId }, options);

test("gives up on an answer after the call's time-out, with the outcome unknown", async () => {
  await using bridge = await startFake("silent");
  const error = await rejection(report(bridge, 42, { timeoutMs: 50 }), CallTimeoutError);
  assert.equal(error.outcome, "unknown");
  assert.equal(error.taskId, 42);
  assert.equal(error.method, "reportIncorrectRecaptcha");
  assert.equal(bridge.openCalls, 0);
});

test("takes the time-out of the options for calls that name none", async () => {
  await using bridge = await startFake("silent", { timeoutMs: 50 });
  const error = await rejection(bridge.status(), CallTimeoutError);
  assert.equal(error.outcome, null);
});

test("rejects an aborted call at once, with the signal's reason as the cause", async () => {
  await using bridge = await startFake("silent");
  const abort = new AbortController();
  const call = rejection(report(bridge, 6, { signal: abort.signal }), CallAbortedError);
  abort.abort("no longer of interest");
  const error = await call;
  assert.equal(error.name, "AbortError");
  assert.equal(error.cause, "no longer of interest");
  assert.equal(error.outcome, "unknown");
  const early = await rejection(report(bridge, 6, { signal: abort.signal }), CallAbortedError);
  assert.equal(early.outcome, "not_sent");
});

test("a signal that is none is refused, and leaves no timer behind", async () => {
  const errors: unknown[] = [];
  process.setUncaughtExceptionCaptureCallback((error) => errors.push(error));
  try {
    await using bridge = await startFake("silent");
    const odd = { aborted: false, addEventListener: () => assert.fail("odd"), removeEventListener: () => undefined };
    for (const [signal, message] of [
      [new AbortController(), "signal must be an AbortSignal, such as the signal of an AbortController."],
      [odd, "odd"],
    ] as const) {
      const options = { signal: signal as unknown as AbortSignal, timeoutMs: 20 };
      assert.equal((await rejection(report(bridge, 5, options), Error)).message, message);
    }
    await new Promise((resolve) => setTimeout(resolve, 60));
    assert.equal(bridge.openCalls, 0);
  } finally {
    process.setUncaughtExceptionCaptureCallback(null);
  }
  assert.deepEqual(errors, []);
});

test("does not count the late answer of a call that was given up", async () => {
  await using bridge = await startFake("answers-late");
  await rejection(report(bridge, 1, { timeoutMs: 20 }), CallTimeoutError);
  assert.equal((await report(bridge, 2)).taskId, 2);
  assert.equal(bridge.protocolErrors, 0);
});

test("one signal for a thousand calls leaves no listener and no warning behind", async () => {
  const warnings: Error[] = [];
  const onWarning = (warning: Error): void => void warnings.push(warning);
  process.on("warning", onWarning);
  await using bridge = await startFake("echo");
  const { signal } = new AbortController();
  await Promise.all(Array.from({ length: 1_000 }, (_, index) => report(bridge, index + 1, { signal })));
  await new Promise((resolve) => setImmediate(resolve));
  process.off("warning", onWarning);
  assert.deepEqual(warnings, []);
});

for (const [behaviour, kinds] of [
  ["garbage", ["not_json", "not_an_answer", "not_an_answer", "unknown_id"]],
  ["crlf", []],
  ["batch", []],
  ["byte-by-byte", []],
  ["floods-stdout", ["line_too_long"]],
] as const) {
  test(`gets its answer from a bridge of the kind ${behaviour}`, async () => {
    const troubles: ProtocolTrouble[] = [];
    await using bridge = await startFake(behaviour, { onProtocolError: (trouble) => troubles.push(trouble) });
    assert.equal((await report(bridge, 77)).taskId, 77);
    assert.deepEqual(troubles.map(({ kind }) => kind), kinds);
    assert.equal(bridge.protocolErrors, kinds.length);
  });
}

test("takes the first of two answers, and tells of the second", async () => {
  const troubles: string[] = [];
  await using bridge = await startFake("twice", { onProtocolError: ({ kind }) => troubles.push(kind) });
  assert.equal((await report(bridge, 1)).taskId, 1);
  assert.equal((await report(bridge, 2)).taskId, 2);
  await waitUntil(() => troubles.length === 2);
  assert.deepEqual(troubles, ["answered_twice", "answered_twice"]);
});

test("finds the call of each answer in whatever order they come", async () => {
  await using bridge = await startFake("reversed");
  const results = await Promise.all([report(bridge, 1), report(bridge, 2), report(bridge, 3)]);
  assert.deepEqual(results.map(({ taskId }) => taskId), [1, 2, 3]);
});

test("leaves a call open whose answer has no proper shape", async () => {
  await using bridge = await startFake("wrong-shape");
  await rejection(report(bridge, 1, { timeoutMs: 100 }), CallTimeoutError);
  assert.equal(bridge.protocolErrors, 1);
});

test("drains a flood on stderr, hands over its lines, and keeps no more than 20", async () => {
  let lines = 0;
  await using bridge = await startFake("floods-stderr", { onStderr: () => (lines += 1) });
  await report(bridge);
  await waitUntil(() => lines >= 200_000);
});

test("a callback that throws harms no call", async () => {
  const errors: unknown[] = [];
  const onError = (error: unknown): void => void errors.push(error);
  process.setUncaughtExceptionCaptureCallback(onError);
  try {
    await using bridge = await startFake("twice", {
      onProtocolError: () => {
        throw new Error("from the callback");
      },
    });
    assert.equal((await report(bridge, 1)).taskId, 1);
    assert.equal((await report(bridge, 2)).taskId, 2);
    await waitUntil(() => errors.length >= 1);
  } finally {
    process.setUncaughtExceptionCaptureCallback(null);
  }
});

test("a death rejects what is open with exit code, task id and the last 20 lines of stderr", async () => {
  await using bridge = await startFake("dies");
  const [first, second, other] = await Promise.all([
    rejection(report(bridge, 1), BridgeDownError),
    rejection(report(bridge, 2), BridgeDownError),
    rejection(bridge.status(), BridgeDownError),
  ]);
  assert.deepEqual([first.outcome, first.taskId, first.exitCode, first.signal], ["unknown", 1, 7, null]);
  assert.deepEqual([second.outcome, second.taskId, other.outcome, other.taskId], ["unknown", 2, null, null]);
  assert.equal(first.stderr.length, 20);
  assert.equal(first.stderr.at(-1), "last words 30");
  assert.match(first.message, /exit code 7.*last words 30/);
  assert.equal(bridge.state, "down");
  const later = await rejection(report(bridge, 3), BridgeDownError);
  assert.deepEqual([later.outcome, later.exitCode], ["not_sent", 7]);
});

test("a death by a signal names the signal", async () => {
  await using bridge = await startFake("dies-of-a-signal");
  const error = await rejection(report(bridge), BridgeDownError);
  assert.deepEqual([error.exitCode, error.signal], [null, "SIGKILL"]);
});

test("a bridge that closes its output is down, though it still runs", async () => {
  await using bridge = await startFake("closes-stdout");
  const error = await rejection(report(bridge), BridgeDownError);
  assert.equal(error.outcome, "unknown");
});

test("with restart, calls after a death start another child and calls in flight are rejected", async () => {
  await using bridge = await startFake("dies", { restart: { firstDelayMs: 10, maxDelayMs: 20 } });
  const { pid } = bridge;
  await rejection(report(bridge, 1), BridgeDownError);
  const info = await bridge.info();
  assert.notEqual(info.pid, pid);
  assert.equal(bridge.pid, info.pid);
  for (let death = 0; death < 3; death += 1) await rejection(report(bridge, 1), BridgeDownError);
  assert.equal((await bridge.info()).name, "fake");
});

test("a call that waits for another child can be aborted, and was not sent", async () => {
  await using bridge = await startFake("dies", { restart: { firstDelayMs: Infinity, maxDelayMs: Infinity } });
  await rejection(report(bridge, 1), BridgeDownError);
  const error = await rejection(report(bridge, 2, { signal: AbortSignal.timeout(30) }), CallAbortedError);
  assert.equal(error.outcome, "not_sent");
  const waiting = rejection(report(bridge, 3), BridgeDownError);
  await new Promise((resolve) => setImmediate(resolve));
  await bridge.close();
  assert.equal((await waiting).outcome, "not_sent");
  assert.equal(bridge.state, "closed");
});

test("a request that is too large does not wait for another child", async () => {
  await using bridge = await startFake("dies", { restart: { firstDelayMs: 60_000, maxDelayMs: 60_000 } });
  await rejection(report(bridge, 1), BridgeDownError);
  const call = bridge.reportIncorrectRecaptcha({ taskId: 2, taskType: "x".repeat(5_000) }, { timeoutMs: 1_000 });
  assert.equal((await rejection(call, BridgeCallError)).rule, "message_too_large");
});

test("while the bridge lives, an error has none of its lines about other tasks", async () => {
  await using bridge = await startFake("chatty");
  const lines: string[] = [];
  await report(bridge, 1);
  const abort = new AbortController();
  const calls = [
    rejection(report(bridge, 2, { timeoutMs: 300 }), CallTimeoutError),
    rejection(report(bridge, 3, { signal: abort.signal }), CallAbortedError),
  ];
  setTimeout(() => abort.abort(), 200);
  for (const error of await Promise.all(calls)) lines.push(error.message, ...error.stderr);
  await bridge.close();
  const late = await rejection(report(bridge, 4), BridgeDownError);
  lines.push(late.message, ...late.stderr);
  assert.deepEqual(lines, [
    "reportIncorrectRecaptcha of task 2: no answer within 300 ms",
    "reportIncorrectRecaptcha of task 3: aborted by the caller",
    "reportIncorrectRecaptcha of task 4: the bridge was closed (exit code 0)",
  ]);
});

test("tells of a Python that is gone, and how to mend it", async () => {
  const script = join(mkdtempSync(join(tmpdir(), "bridge-")), "report-bridge");
  writeFileSync(script, "#!/gone/python3 -I\nimport bridge\n", { mode: 0o755 });
  const { message } = await rejection(Bridge.start({ path: script }), BridgeDownError);
  assert.ok(message.includes(`${script} could not be started: /gone/python3, which its first line names`), message);
  assert.match(message, /does not exist\nTo install it from the project's folder/);
});

test("tells of a program that is none of ours", async () => {
  const { message } = await rejection(Bridge.start({ path: "/bin/cat", startTimeoutMs: 200 }), CallTimeoutError);
  assert.equal(message, "bridge.info: no answer from /bin/cat within 200 ms; is it report-bridge?");
});

test("tells why a bridge did not start", async () => {
  const dead = await rejection(startFake("dies-at-start"), BridgeDownError);
  assert.equal(dead.exitCode, 3);
  assert.match(dead.message, /the configuration cannot be used/);
  await rejection(startFake("mute", { startTimeoutMs: 300 }), CallTimeoutError);
  const stranger = await rejection(startFake("wrong-protocol"), BridgeError);
  assert.match(stranger.message, /protocol 2/);
});

test("a program whose start failed ends after what it had started", async () => {
  const folder = mkdtempSync(join(tmpdir(), "bridge-"));
  const [path, pidFile] = [join(folder, "hangs"), join(folder, "pid")];
  writeFileSync(path, `#!/bin/sh\ntrap "" TERM\necho $$ > ${pidFile}\nexec sleep 60\n`, { mode: 0o755 });
  const options = JSON.stringify({ path, startTimeoutMs: 500, drainTimeoutMs: 100 });
  const bot = `import { Bridge } from "anticaptcha-report-bridge"; await Bridge.start(${options}).catch(({ name }) => console.log(name));`;
  const { stdout } = spawnSync(process.execPath, ["--input-type=module", "-e", bot], { cwd: PACKAGE, encoding: "utf8", timeout: 8_000 });
  assert.equal(stdout, "CallTimeoutError\n");
  assert.ok(!isAlive(Number(readFileSync(pidFile, "utf8"))));
});

test("lists the places it looked at when there is no bridge", async () => {
  const start = (path: string | undefined, env: Record<string, string | undefined>): Promise<BridgeNotFoundError> =>
    rejection(Bridge.start(path === undefined ? { env } : { path, env }), BridgeNotFoundError);
  const option = await start("/nowhere/bridge", {});
  assert.match(option.message, /\/nowhere\/bridge \(option path\)/);
  const variable = await start(undefined, { REPORT_BRIDGE_BIN: "/nowhere/too" });
  const platform = `anticaptcha-report-bridge-${process.platform}-${process.arch}`;
  assert.deepEqual(variable.tried, [`package ${platform} (not installed)`, "/nowhere/too (REPORT_BRIDGE_BIN)"]);
  const search = await start(undefined, { REPORT_BRIDGE_BIN: undefined, PATH: "/nowhere" });
  assert.deepEqual(search.tried, [
    `package ${platform} (not installed)`,
    "/nowhere/report-bridge (PATH)",
    "/nowhere/python3 (PATH, with the Python package anticaptcha-report-bridge)",
    "/nowhere/python (PATH, with the Python package anticaptcha-report-bridge)",
  ]);
  assert.match(search.message, /\n {2}\/nowhere\/report-bridge \(PATH\)\n/);
  const readme = readFileSync(join(PACKAGE, "README.md"), "utf8");
  const commands = search.message.split("\n").filter((line) => /^ {2}(python3|export) /.test(line));
  assert.deepEqual(commands.map((line) => readme.includes(`\n${line.trim()}`)), [true, true], search.message);
  assert.match(search.message, /`make dist`/);
  const folder = mkdtempSync(join(tmpdir(), "bridge-"));
  writeFileSync(join(folder, "report-bridge"), "#!/bin/sh\nexit 3\n");
  const there = await start(undefined, { REPORT_BRIDGE_BIN: undefined, PATH: folder });
  assert.equal(there.tried[1], `${join(folder, "report-bridge")} (PATH): it is there, but not executable`);
  assert.deepEqual((await start(folder, {})).tried, [`${folder} (option path): it is there, but not a file`]);
  const beneath = join(folder, "report-bridge", "x");
  assert.deepEqual((await start(beneath, {})).tried, [`${beneath} (option path)`]);
  chmodSync(join(folder, "report-bridge"), 0o755);
  const found = Bridge.start({ env: { REPORT_BRIDGE_BIN: undefined, PATH: folder } });
  assert.equal((await rejection(found, BridgeDownError)).exitCode, 3);
});

test("the key is in no error, no line of stderr and nothing that console.log shows", async () => {
  const seen: unknown[] = [];
  await using bridge = await startFake("leaks-key", {
    clientKey: KEY,
    onStderr: (line) => seen.push(line),
    onProtocolError: (trouble) => seen.push(trouble),
  });
  const error = await rejection(bridge.reportCorrectRecaptcha({ taskId: 1, clientKey: KEY }), BridgeDownError);
  const wrong = await rejection(bridge.reportCorrectRecaptcha({ taskId: KEY as never, clientKey: KEY }), TypeError);
  for (const thing of [error, wrong, bridge, seen, { bridge }]) {
    const shown = `${inspect(thing, { depth: 10, showHidden: true })} ${JSON.stringify(thing)} ${String(thing)}`;
    assert.ok(!shown.includes(KEY), shown);
  }
  assert.equal(seen.length, 2);
  assert.match(inspect(bridge), /^Bridge \{ state: '/);
});

test("refuses params that would lose digits, before anything is written", async () => {
  await using bridge = await startFake("silent");
  for (const taskId of [2 ** 53, 0, -1, 1.5, NaN, Infinity, "5", 5n, {}, undefined, null]) {
    const call = bridge.reportIncorrectRecaptcha({ taskId: taskId as never }, { timeoutMs: 30 });
    const isMissing = taskId === undefined || taskId === null;
    await (isMissing ? rejection(call, CallTimeoutError) : rejection(call, TypeError));
  }
  await rejection(bridge.reportIncorrectRecaptcha({ taskId: 1, completedAt: NaN }), TypeError);
  await rejection(bridge.info({ timeoutMs: -1 }), TypeError);
  assert.equal(bridge.openCalls, 0);
});

test("stops writing when the bridge stops reading, and knows what never left", async () => {
  await using bridge = await startFake("reads-no-more", { closeTimeoutMs: 100 });
  const before = process.memoryUsage().arrayBuffers;
  const calls = Array.from({ length: 20_000 }, (_, index) =>
    rejection(report(bridge, index + 1, { timeoutMs: 1_500 }), CallTimeoutError),
  );
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.ok(process.memoryUsage().arrayBuffers - before < 1024 * 1024);
  const outcomes = (await Promise.all(calls)).map((error) => error.outcome);
  const firstUnsent = outcomes.indexOf("not_sent");
  assert.ok(firstUnsent > 100 && firstUnsent < 10_000, String(firstUnsent));
  assert.ok(outcomes.slice(firstUnsent).every((outcome) => outcome === "not_sent"));
});

for (const endless of [Infinity, 2 ** 31]) {
  test(`no time is too long for a timer (${endless})`, async () => {
    const bridge = await startFake("answers-late", { closeTimeoutMs: endless, startTimeoutMs: endless, timeoutMs: endless });
    const answer = report(bridge, 4);
    await bridge.close();
    assert.equal((await answer).taskId, 4);
    const draining = await startFake("drains", { closeTimeoutMs: 0, drainTimeoutMs: endless });
    await draining.close();
    const { exitCode, signal } = await rejection(report(draining), BridgeDownError);
    assert.deepEqual([exitCode, signal], [0, null]);
  });
}

test("close ends a bridge and its children that ignore the end of input and SIGTERM", async () => {
  const bridge = await startFake("stubborn", { closeTimeoutMs: 50 });
  const info = (await bridge.info()) as unknown as { pid: number; grandchild: number };
  assert.ok(isAlive(info.grandchild));
  const open = rejection(report(bridge), BridgeDownError);
  await Promise.all([bridge.close(), bridge.close()]);
  assert.equal((await open).outcome, "unknown");
  await waitUntil(() => !isAlive(info.pid) && !isAlive(info.grandchild));
  const late = await rejection(report(bridge), BridgeDownError);
  assert.match(late.message, /was closed/);
  assert.equal(late.outcome, "not_sent");
  await bridge.close();
});

test("close lets calls through that wait for the next child's handshake", async () => {
  const bridge = await startFake("slow-start", { restart: { firstDelayMs: 1 }, closeTimeoutMs: 10_000 });
  process.kill(bridge.pid as number, "SIGKILL");
  await waitUntil(() => bridge.state === "down");
  const call = report(bridge, 3);
  await waitUntil(() => bridge.pid !== undefined);
  await bridge.close();
  assert.equal((await call).taskId, 3);
});

test("close waits for answers that are on their way, unwritten calls included", async () => {
  const bridge = await startFake("answers-late", { closeTimeoutMs: 10_000 });
  const taskIds = Array.from({ length: 5_000 }, (_, index) => index + 1);
  const calls = taskIds.map((taskId) => report(bridge, taskId));
  const closed = bridge.close();
  assert.equal(bridge.state, "closing");
  assert.deepEqual((await Promise.all(calls)).map(({ taskId }) => taskId), taskIds);
  await closed;
  assert.equal(bridge.state, "closed");
});

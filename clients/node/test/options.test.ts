import assert from "node:assert/strict";
import { test } from "node:test";

import { Bridge, BridgeNotFoundError } from "anticaptcha-report-bridge";

import { KEY, rejection, startFake } from "./support.js";

const report = (bridge: Bridge, taskId = 5, options = {}): Promise<{ taskId: number }> =>
  bridge.reportIncorrectRecaptcha({ taskId }, options);

test("refuses an option that does not exist, by its name, with the one that was meant", async () => {
  for (const [options, message] of [
    [{ keyfile: "/x" }, 'Bridge.start has no option "keyfile". Did you mean keyFile?'],
    [{ sandbox: true, clientkey: KEY }, 'Bridge.start has no option "clientkey". Did you mean clientKey?'],
    [{ colour: "red" }, 'Bridge.start has no option "colour".'],
    [{ restart: { firstDelay: 1 } }, 'restart has no option "firstDelay". Did you mean firstDelayMs?'],
  ] as const) {
    assert.equal((await rejection(Bridge.start(options as never), TypeError)).message, message);
  }
  await using bridge = await startFake("echo");
  const wrong = await rejection(report(bridge, 1, { timeout: 5 }), TypeError);
  assert.equal(wrong.message, 'The call has no option "timeout". Did you mean timeoutMs?');
});

test("refuses an option of another kind, by its name, with what it must be and without its value", async () => {
  const flag = "true or false.";
  const text = "a string.";
  const time = "a number of milliseconds, 0 or more.";
  const callback = "a function.";
  for (const [option, value, must] of [
    ["path", 5, text],
    ["args", "--x", "an array of strings."],
    ["args", ["--x", 5], "an array of strings."],
    ["env", "A=b", "an object of strings."],
    ["env", { A: 5 }, "an object of strings."],
    ["sandbox", "yes", flag],
    ["sandbox", "true", flag],
    ["sandbox", 1, flag],
    ["url", new URL("http://127.0.0.1"), text],
    ["ledger", true, text],
    ["keyFile", 5, text],
    ["clientKey", [KEY], text],
    ["timeoutMs", KEY, time],
    ["startTimeoutMs", NaN, time],
    ["closeTimeoutMs", -1, time],
    ["drainTimeoutMs", 5n, time],
    ["restart", "yes", "true, false, or an object of firstDelayMs and maxDelayMs."],
    ["onStderr", "x", callback],
    ["onProtocolError", {}, callback],
    ["onPause", 1, callback],
    ["onAdvice", true, callback],
  ] as const) {
    const { message } = await rejection(startFake("echo", { [option]: value } as never), TypeError);
    assert.equal(message, `${option} must be ${must}`);
  }
  const restart = { firstDelayMs: "1" } as never;
  assert.equal((await rejection(startFake("echo", { restart }), TypeError)).message, `firstDelayMs must be ${time}`);
  assert.equal((await rejection(Bridge.start("x" as never), TypeError)).message, "Bridge.start takes an object of options.");
  await using bridge = await startFake("echo");
  const wrong = await rejection(report(bridge, 1, 5 as never), TypeError);
  assert.equal(wrong.message, "The call takes an object of options.");
});

test("an option that is null or undefined is left out", async () => {
  const names = ["sandbox", "url", "ledger", "keyFile", "clientKey", "timeoutMs", "startTimeoutMs", "closeTimeoutMs"];
  names.push("drainTimeoutMs", "restart", "onStderr", "onProtocolError", "onPause", "onAdvice");
  for (const value of [null, undefined]) {
    const options = Object.fromEntries(names.map((name) => [name, value]));
    await using bridge = await startFake("chatty", { ...options, env: { ANTICAPTCHA_CLIENT_KEY: value as undefined } });
    const info = (await bridge.info()) as unknown as { argv: unknown; key: unknown };
    assert.deepEqual([info.argv, info.key], [["chatty"], undefined]);
    await report(bridge, 1, { timeoutMs: value, signal: value });
    assert.equal((await bridge.reportIncorrectRecaptcha({ taskId: 1 }, value as undefined)).taskId, 1);
    bridge.noteTasks({ taskType: "A" }, value as never);
  }
  const before = { ...process.env };
  process.env["REPORT_BRIDGE_BIN"] = "/nowhere";
  try {
    for (const options of [null, { path: null, args: null, env: null, restart: { firstDelayMs: null } }]) {
      await rejection(Bridge.start(options as never), BridgeNotFoundError);
    }
  } finally {
    delete process.env["REPORT_BRIDGE_BIN"];
    Object.assign(process.env, before);
  }
});

test("turns options into arguments and environment, and the key never into an argument", async () => {
  await using bridge = await startFake("echo", {
    sandbox: true,
    url: "http://127.0.0.1:1/",
    ledger: "postgresql://user:secret@localhost/x",
    clientKey: KEY,
    env: { ANTICAPTCHA_CLIENT_KEY_FILE: "/inherited" },
  });
  const info = (await bridge.info()) as unknown as Record<string, unknown>;
  assert.deepEqual(info["argv"], ["echo", "--sandbox", "--url", "http://127.0.0.1:1/"]);
  assert.equal(info["key"], KEY);
  assert.equal(info["ledger"], "postgresql://user:secret@localhost/x");
  await using other = await startFake("echo", { ledger: "/some/file", keyFile: "/key" });
  const argv = ((await other.info()) as unknown as Record<string, unknown>)["argv"];
  assert.deepEqual(argv, ["echo", "--ledger", "/some/file", "--key-file", "/key"]);
  await rejection(startFake("echo", { clientKey: KEY, keyFile: "/key" }), TypeError);
});

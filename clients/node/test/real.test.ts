// Against the real bridge: REPORT_BRIDGE_BIN, else report-bridge on PATH. Without it these tests fail.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import {
  Bridge,
  BridgeCallError,
  BridgeDownError,
  CallAbortedError,
  CallTimeoutError,
  ReportError,
  type BridgeOptions,
} from "anticaptcha-report-bridge";

import { isAlive, KEY, rejection, waitUntil } from "./support.js";

const MAGIC = 9_000_000_000_000_000;
const startSandbox = (options: BridgeOptions = {}): Promise<Bridge> => Bridge.start({ sandbox: true, ...options });

test("all ten methods answer", async () => {
  await using bridge = await startSandbox();
  const accepted = await bridge.reportIncorrectImageCaptcha({ taskId: 1, languagePool: "en" });
  assert.deepEqual([accepted.taskId, accepted.outcome, accepted.replayed], [1, "accepted", false]);
  assert.equal((await bridge.reportIncorrectRecaptcha({ taskId: 2, completedAt: Date.now() / 1000 })).taskId, 2);
  assert.equal((await bridge.reportCorrectRecaptcha({ taskId: 3, taskType: "RecaptchaV3TaskProxyless" })).taskId, 3);
  assert.equal((await bridge.reportIncorrectHcaptcha({ taskId: 4 })).taskId, 4);
  assert.equal((await bridge.reportIncorrectRecaptcha({ taskId: 2 })).replayed, true);
  assert.equal((await bridge.info()).sandbox, true);
  assert.equal((await bridge.status()).outcomes.accepted, 4);
  assert.equal((await bridge.getReport({ taskId: 3 })).method, "reportCorrectRecaptcha");
  assert.equal((await bridge.listReports()).reports.length, 4);
  assert.equal((await bridge.listReports({ limit: 1, outcome: "accepted" })).reports.length, 1);
  assert.deepEqual((await bridge.resume({ scope: "key" })).resumed, []);
  assert.equal(typeof (await bridge.discover())["openrpc"], "string");
  assert.equal(bridge.protocolErrors, 0);
});

test("errors carry what the bridge says", async () => {
  await using bridge = await startSandbox();
  const refused = await rejection(bridge.reportIncorrectImageCaptcha({ taskId: MAGIC + 16 }), ReportError);
  assert.deepEqual([refused.code, refused.kind, refused.outcome], [16, "no_such_captcha", "refused"]);
  assert.deepEqual([refused.retryable, refused.taskId], [false, MAGIC + 16]);
  assert.ok(refused.hints.length > 0);
  assert.equal(refused.data.errorCode, "ERROR_NO_SUCH_CAPCHA_ID");
  const conflict = await rejection(bridge.reportIncorrectRecaptcha({ taskId: MAGIC + 16 }), ReportError);
  assert.equal(conflict.kind, "task_conflict");
  const absent = await rejection(bridge.getReport({ taskId: 5 }), BridgeCallError);
  assert.deepEqual([absent.code, absent.kind], [-32014, "report_not_found"]);
  const invalid = await rejection(
    bridge.reportIncorrectImageCaptcha({ taskId: 5, languagePool: "xx" as never }),
    BridgeCallError,
  );
  assert.deepEqual([invalid.kind, invalid.data.pointer], ["invalid_params", "/languagePool"]);
});

test("a request is refused at once if it is larger than the bridge takes, and only then", async () => {
  await using bridge = await startSandbox();
  const { maxMessage } = (await bridge.info()).limits; // the third request is next
  const around = Buffer.byteLength('{"jsonrpc":"2.0","id":3,"method":"reportIncorrectRecaptcha","params":{"taskId":5,"taskType":"é"}}');
  const call = (length: number): Promise<BridgeCallError> =>
    rejection(bridge.reportIncorrectRecaptcha({ taskId: 5, taskType: `é${"x".repeat(length)}` }, { timeoutMs: 5_000 }), BridgeCallError);
  assert.equal((await call(maxMessage - around)).kind, "invalid_params");
  const error = await call(maxMessage - around + 1);
  assert.deepEqual([error.code, error.kind, error.rule, error.taskId], [-32600, "invalid_request", "message_too_large", 5]);
  assert.match(error.message, /Nothing was sent: the request has 1048577 bytes, and the bridge takes 1048576\. \(invalid_request\)$/);
  assert.equal(bridge.openCalls, 0);
  assert.equal(bridge.protocolErrors, 0);
});

test("2,000 calls at once with random cancels: every answer finds its call", { timeout: 120_000 }, async () => {
  await using bridge = await startSandbox();
  await bridge.reportIncorrectRecaptcha({ taskId: 1 });
  let seed = 20_260_102;
  const random = (): number => (seed = (seed * 48_271) % 2_147_483_647) / 2_147_483_647;
  const outcomes = await Promise.all(
    Array.from({ length: 2_000 }, async (_, index) => {
      const taskId = 10_000 + index;
      const abort = new AbortController();
      if (random() < 0.3) setTimeout(() => abort.abort(), random() * 1_000);
      try {
        const result = await bridge.reportIncorrectRecaptcha({ taskId }, { signal: abort.signal });
        assert.equal(result.taskId, taskId);
        return "accepted";
      } catch (error) {
        assert.ok(error instanceof CallAbortedError, String(error));
        assert.equal(error.taskId, taskId);
        return "aborted";
      }
    }),
  );
  assert.ok(outcomes.filter((outcome) => outcome === "accepted").length >= 1_300);
  await waitUntil(async () => (await bridge.status()).queued === 0);
  assert.equal(bridge.protocolErrors, 0);
  assert.equal(bridge.openCalls, 0);
});

test("an abort before the report has begun keeps it from being sent", async () => {
  await using bridge = await startSandbox({ args: ["--concurrency", "1"] });
  const first = bridge.reportIncorrectRecaptcha({ taskId: MAGIC + 1_001 });
  const abort = new AbortController();
  const second = rejection(bridge.reportIncorrectRecaptcha({ taskId: 8 }, { signal: abort.signal }), CallAbortedError);
  await waitUntil(async () => (await bridge.status()).queued === 1);
  abort.abort();
  await second;
  assert.equal((await first).outcome, "accepted");
  assert.equal((await bridge.getReport({ taskId: 8 })).outcome, "not_sent");
});

test("a call repeated after its time-out gets the answer of the report under way", async () => {
  await using bridge = await startSandbox();
  const call = (timeoutMs: number): Promise<{ replayed: boolean; attempts: number }> =>
    bridge.reportIncorrectRecaptcha({ taskId: MAGIC + 3_115 }, { timeoutMs });
  const error = await rejection(call(2_500), CallTimeoutError); // the report has begun, and takes 5 s
  assert.equal(error.outcome, "unknown");
  const { replayed, attempts } = await call(30_000);
  assert.deepEqual([replayed, attempts], [true, 1]);
});

test("SIGKILL in mid flight: unknown, with task id and signal; with restart the next call works", async () => {
  await using bridge = await startSandbox({ restart: true });
  const open = rejection(bridge.reportIncorrectRecaptcha({ taskId: MAGIC + 3_115 }), BridgeDownError);
  await waitUntil(async () => (await bridge.status()).inFlight === 1);
  process.kill(bridge.pid as number, "SIGKILL");
  const error = await open;
  assert.deepEqual([error.outcome, error.taskId, error.signal], ["unknown", MAGIC + 3_115, "SIGKILL"]);
  assert.equal((await bridge.reportIncorrectRecaptcha({ taskId: 9 })).taskId, 9);
});

test("close answers what was accepted", async () => {
  const bridge = await startSandbox();
  const open = bridge.reportIncorrectRecaptcha({ taskId: MAGIC + 1_001 });
  await bridge.close();
  assert.equal((await open).outcome, "accepted");
  assert.ok(!isAlive(bridge.pid as number));
});

test("a configuration that cannot be used ends the start with exit code 3 and a reason", async () => {
  const error = await rejection(Bridge.start({ url: "http://192.0.2.1/", ledger: "memory" }), BridgeDownError);
  assert.equal(error.exitCode, 3);
  assert.ok(error.stderr.length > 0);
});

test("the key is not in the list of processes", async () => {
  const ledger = join(mkdtempSync(join(tmpdir(), "bridge-")), "ledger.sqlite3");
  await using bridge = await Bridge.start({ clientKey: KEY, ledger, url: "http://127.0.0.1:1" });
  const commandLine = execFileSync("ps", ["-ww", "-o", "args=", "-p", String(bridge.pid)], { encoding: "utf8" });
  assert.ok(commandLine.includes(ledger) && !commandLine.includes(KEY));
});

test("a clientKey takes the place of every other source of a key", async () => {
  const others = { ANTICAPTCHA_CLIENT_KEY_FILE: "/inherited", REPORT_BRIDGE_KEY_COMMAND: "echo another-key" };
  await using bridge = await Bridge.start({ clientKey: KEY, ledger: "memory", url: "http://127.0.0.1:1", env: others });
  assert.equal((await bridge.info()).sandbox, false);
});

test("can be required, too", async () => {
  const required = createRequire(import.meta.url)("anticaptcha-report-bridge") as { Bridge: typeof Bridge };
  const bridge = await required.Bridge.start({ sandbox: true });
  assert.equal((await bridge.reportIncorrectHcaptcha({ taskId: 1 })).outcome, "accepted");
  await bridge.close();
});

interface Host {
  readonly pid: number;
  readonly lines: string[];
  readonly exit: Promise<number | null>;
  kill(): void;
}

async function runHost(mode: string): Promise<Host> {
  const script = fileURLToPath(new URL("host.js", import.meta.url));
  const host = spawn(process.execPath, [script, mode], { stdio: ["ignore", "pipe", "inherit"] });
  const exit = new Promise<number | null>((resolve) => host.on("close", (code) => resolve(code)));
  const lines: string[] = [];
  createInterface({ input: host.stdout }).on("line", (line) => lines.push(line));
  await waitUntil(() => lines.length > 0 || host.exitCode !== null);
  const { pid } = JSON.parse(lines[0] ?? "{}") as { pid: number };
  return { pid, lines, exit, kill: () => void host.kill("SIGKILL") };
}

for (const mode of ["idle", "wait", "close"]) {
  test(`a program ends by itself, and the bridge with it (${mode})`, { timeout: 60_000 }, async (t) => {
    const host = await runHost(mode);
    t.after(() => host.kill());
    assert.equal(await host.exit, 0);
    if (mode === "wait") assert.equal(host.lines[1], "accepted");
    await waitUntil(() => !isAlive(host.pid));
  });
}

test("when the program is killed, the bridge is gone within 5 s", async () => {
  const host = await runHost("stay");
  assert.ok(isAlive(host.pid));
  host.kill();
  await host.exit;
  await waitUntil(() => !isAlive(host.pid), 5_000);
});

// A bot that has 200 captchas solved, finds out which answers were wrong, and reports them in time.
//
// It runs against the simulator, so it needs no account; what it does about reports is what a real bot would do.
// In the middle the bridge is killed. Nothing may be lost: the exit code is 1 if a report was.
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Bridge, ReportError, UnansweredError, type ReportParams, type ReportResult } from "anticaptcha-report-bridge";

const TASKS = 200;
const PROGRAM = process.env["REPORT_BRIDGE_BIN"] ?? "report-bridge";

interface Task {
  readonly taskId: number;
  readonly kind: "image" | "recaptcha_v2" | "recaptcha_v3";
  readonly endTime: number;
}
interface Ending {
  readonly task: Task;
  readonly outcome: string;
  readonly calls: number;
}

// --- what stands for the vendor: the simulator ---

const folder = mkdtempSync(join(tmpdir(), "bot-"));
const readyFile = join(folder, "ready");
const simulator = spawn(PROGRAM, ["simulate", "--ready-file", readyFile, "--latency", "0.05"], {
  stdio: ["ignore", "ignore", "inherit"],
});
const simulatorStarts = Date.now();
while (!existsSync(readyFile)) {
  if (simulator.exitCode !== null || Date.now() - simulatorStarts > 20_000) throw new Error("no simulator");
  await sleep(20);
}
const url = readFileSync(readyFile, "utf8").trim();

async function control<T>(path: string, body?: object): Promise<T> {
  const init = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  const response = await fetch(`${url}/_control/${path}`, { ...init, headers: { connection: "close" } });
  return (await response.json()) as T;
}

// --- the bot ---

/** Solves a captcha and uses the answer. Every other one turns out wrong. */
async function solve(index: number): Promise<{ task: Task; isWrong: boolean }> {
  const kind = (["image", "recaptcha_v2", "recaptcha_v3"] as const)[index % 3] ?? "image";
  const { tasks } = await control<{ tasks: Task[] }>("tasks", { tasks: [{ kind, ageSeconds: 1 }] });
  const [task] = tasks;
  if (task === undefined) throw new Error("no task");
  return { task: { taskId: task.taskId, kind, endTime: task.endTime }, isWrong: index % 2 === 0 };
}

/**
 * Reports a wrong answer. After a crash it repeats the call: the ledger is a file, so a report that was
 * already begun is not sent a second time by mistake, and one that was not is sent now.
 */
async function reportWrong(bridge: Bridge, task: Task): Promise<Ending> {
  const params: ReportParams = { taskId: task.taskId, completedAt: task.endTime };
  for (let calls = 1; ; calls += 1) {
    try {
      const result: ReportResult =
        task.kind === "image"
          ? await bridge.reportIncorrectImageCaptcha({ ...params, languagePool: "en" })
          : await bridge.reportIncorrectRecaptcha(params);
      return { task, outcome: result.outcome, calls };
    } catch (error) {
      const canRepeat = error instanceof UnansweredError || (error instanceof ReportError && error.retryable);
      if (!canRepeat || calls === 10) {
        const outcome = error instanceof ReportError ? (error.outcome ?? error.kind) : String(error);
        return { task, outcome, calls };
      }
      await sleep(50);
    }
  }
}

function sleep(timeMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, timeMs));
}

let lost: number;
try {
  await using bridge = await Bridge.start({
    url,
    clientKey: "0123456789abcdef0123456789abcdef",
    ledger: join(folder, "ledger.sqlite3"),
    restart: true,
  });

  const firstPid = bridge.pid;
  let answered = 0;
  const reports: Array<Promise<Ending>> = [];
  for (let index = 0; index < TASKS; index += 1) {
    const { task, isWrong } = await solve(index);
    if (!isWrong) continue;
    const report = reportWrong(bridge, task);
    reports.push(report);
    void report.then(() => (answered += 1));
    // The accident: half of the work is done, and reports are under way.
    if (index === TASKS / 2 && bridge.pid !== undefined) process.kill(bridge.pid, "SIGKILL");
  }
  const endings = await Promise.all(reports);

  const { deliveries } = await control<{ deliveries: Array<{ taskId: number; taken: number }> }>("deliveries");
  const taken = new Set(deliveries.filter((each) => each.taken === 1).map((each) => each.taskId));
  const missing = endings.filter(({ task }) => !taken.has(task.taskId));
  lost = missing.length + (TASKS / 2 - answered);
  const count = (outcome: string): number => endings.filter((ending) => ending.outcome === outcome).length;
  const repeated = endings.filter(({ calls }) => calls > 1).length;
  console.log(`${TASKS} tasks, ${endings.length} wrong answers reported, ${repeated} of them again after the crash`);
  console.log(`bridge ${firstPid} was killed, bridge ${bridge.pid} went on`);
  console.log(`accepted ${count("accepted")}, unknown ${count("unknown")} (begun at the crash), lost ${lost}`);
  for (const { task, outcome } of missing) console.error(`lost: ${task.kind} ${task.taskId}: ${outcome}`);
  if (repeated === 0 || bridge.pid === firstPid) throw new Error("the crash hit nothing");
} finally {
  simulator.kill();
  rmSync(folder, { recursive: true, force: true });
}
process.exitCode = lost === 0 ? 0 : 1;

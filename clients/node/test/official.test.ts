// The official client beside the bridge. It can be pointed nowhere but at the vendor, so the HTTP library below it is made to
// speak to a stand-in on loopback, and to nobody else.
import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type Server } from "node:http";
import { createRequire } from "node:module";
import type { AddressInfo } from "node:net";
import { after, before, test } from "node:test";

import { Bridge, newOfficialTask, ReportError } from "anticaptcha-report-bridge";

import { KEY, rejection, startFake } from "./support.js";

interface Official {
  settings: Record<string, unknown>;
  session: { taskId: number };
  JSONRequest(method: string, payload: object): Promise<unknown>;
  solveImage(body: string): Promise<string>;
  solveRecaptchaV3(url: string, siteKey: string, score: number, action: string): Promise<string>;
  reportIncorrectImageCaptcha(): Promise<unknown>;
  reportCorrectRecaptcha(): Promise<unknown>;
}
interface AxiosRequest {
  url: string;
  proxy: false;
}

const TASKS = 1_000;
const IN_FLIGHT = 100;
const require = createRequire(import.meta.url);
const official = require("@antiadmin/anticaptchaofficial") as Official;
const axios = createRequire(require.resolve("@antiadmin/anticaptchaofficial"))("axios") as {
  interceptors: { request: { use(change: (request: AxiosRequest) => AxiosRequest): void } };
};

/** Stands for the vendor: gives out ids, is done after a moment, and remembers every report. */
class Vendor {
  readonly reported: number[] = [];
  readonly #server: Server;
  #lastId = 2_000_000_000;
  url = "";

  constructor() {
    this.#server = createServer((request, response) => {
      void this.#answer(request).then((answer) => response.end(JSON.stringify({ errorId: 0, ...answer })));
    });
  }

  async start(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    this.url = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  stop(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  async #answer(request: IncomingMessage): Promise<object> {
    let text = "";
    for await (const chunk of request) text += String(chunk);
    const { taskId } = JSON.parse(text) as { taskId: number };
    if (request.url === "/createTask") {
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 20));
      return { taskId: (this.#lastId += 1) };
    }
    if (request.url === "/getTaskResult") {
      if (Math.random() < 0.1) return { status: "processing" };
      const solution = { text: `text of ${taskId}`, gRecaptchaResponse: `token of ${taskId}` };
      return { status: "ready", solution, cost: "0.00070", endTime: Math.floor(Date.now() / 1000) };
    }
    if (this.reported.includes(taskId)) return { errorId: 16, errorCode: "ERROR_NO_SUCH_CAPCHA_ID", errorDescription: "No." };
    this.reported.push(taskId);
    return { status: "success" };
  }
}

let vendor = new Vendor();

before(() => {
  axios.interceptors.request.use((request) => {
    const url = request.url.replace("https://api.anti-captcha.com", vendor.url);
    assert.match(url, /^http:\/\/127\.0\.0\.1:/);
    return { ...request, url, proxy: false };
  });
  Object.assign(official.settings, { clientKey: KEY, isVerbose: false, firstAttemptWaitingInterval: 0.02, normalWaitingInterval: 0.02 });
});
after(() => vendor.stop());

/** Solves many captchas at a time and reports each answer. Gives the ids whose answers were in hand. */
async function solveAndReport(report: (solve: number) => Promise<number>): Promise<number[]> {
  vendor.stop();
  vendor = new Vendor();
  await vendor.start();
  const inHand: number[] = [];
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < TASKS) inHand.push(await report((next += 1)));
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, worker));
  return inHand;
}

const idOf = (solution: string): number => Number(solution.split(" ").at(-1));

test("1,000 interleaved tasks: no wrong id through the bridge, most of them wrong without", { timeout: 120_000 }, async (t) => {
  let wrongIds = 0;
  await solveAndReport(async () => {
    const taskId = idOf(await official.solveImage("body"));
    if (official.session.taskId !== taskId) wrongIds += 1;
    await official.reportIncorrectImageCaptcha().catch(() => undefined); // the same id a second time is refused
    return taskId;
  });
  t.diagnostic(`the official client alone: ${wrongIds} of ${TASKS} reports with another task's id`);
  assert.ok(wrongIds > TASKS / 2, String(wrongIds));

  let bridge: Promise<Bridge> | undefined;
  let swapped = 0;
  const inHand = await solveAndReport(async () => {
    bridge ??= Bridge.start({ url: vendor.url, ledger: "memory" });
    const task = newOfficialTask(official, await bridge);
    const taskId = idOf(await task.solveImage("body"));
    if (task.session.taskId !== taskId) swapped += 1;
    await task.reportIncorrectImageCaptcha();
    return taskId;
  });
  await (await bridge)?.close();
  const sorted = (ids: number[]): number[] => [...ids].sort((a, b) => a - b);
  t.diagnostic(`through the bridge: ${swapped} of ${TASKS}`);
  assert.deepEqual([swapped, inHand.length], [0, TASKS]);
  assert.deepEqual(sorted(vendor.reported), sorted(inHand));
});

test("a report has what was learned while the task was solved, and the task is noted once", async () => {
  vendor.stop();
  vendor = new Vendor();
  await vendor.start();
  await using bridge = await startFake("echo");
  official.session.taskId = 0;
  const image = newOfficialTask(official, bridge);
  const token = newOfficialTask(official, bridge);
  const [text] = await Promise.all([image.solveImage("body"), token.solveRecaptchaV3("http://a", "key", 0.3, "b")]);
  assert.equal(await image.reportIncorrectImageCaptcha(), true);
  assert.equal(await token.reportCorrectRecaptcha(), true);
  const { seen } = (await bridge.info()) as unknown as { seen: Array<{ method: string; params: Record<string, unknown> }> };
  const of = (method: string): Array<Record<string, unknown>> => seen.filter((each) => each.method === method).map(({ params }) => params);
  const [report] = of("reportIncorrectImageCaptcha");
  assert.ok(Math.abs((report?.["completedAt"] as number) - Date.now() / 1000) < 10);
  assert.deepEqual({ ...report, completedAt: 0 }, { clientKey: KEY, taskId: idOf(text), taskType: "ImageToTextTask", completedAt: 0, languagePool: "en" });
  assert.equal(of("reportCorrectRecaptcha")[0]?.["taskType"], "RecaptchaV3TaskProxyless");
  assert.deepEqual(of("bridge.noteTasks").map(({ taskType, cost }) => [taskType, cost]).sort(), [
    ["ImageToTextTask", 0.0007],
    ["RecaptchaV3TaskProxyless", 0.0007],
  ]);
  assert.equal(official.session.taskId, 0);
});

test("a report that fails rejects with an error of this package; solving calls are passed on as they are", async () => {
  const calls: unknown[] = [];
  const stub = {
    session: { taskId: 7 },
    settings: { clientKey: KEY },
    async JSONRequest(this: unknown, method: string, payload: object): Promise<unknown> {
      calls.push([this === task, method, payload]);
      if (method === "createTask") throw "ERROR_ZERO_BALANCE";
      return { status: "ready", endTime: "never", cost: {} };
    },
    report(): Promise<unknown> {
      return this.JSONRequest("reportIncorrectRecaptcha", { clientKey: KEY, taskId: this.session.taskId });
    },
  };
  await using bridge = await startFake("advises");
  const task = newOfficialTask(stub, bridge);
  const [create, get] = [{ clientKey: KEY, task: { type: "ImageToTextTask" } }, { clientKey: KEY, taskId: 7 }];
  await assert.rejects(task.JSONRequest("createTask", create), (error) => error === "ERROR_ZERO_BALANCE");
  assert.deepEqual(await task.JSONRequest("getTaskResult", get), { status: "ready", endTime: "never", cost: {} });
  assert.deepEqual(calls, [[true, "createTask", create], [true, "getTaskResult", get]]);
  task.session.taskId = 2;
  assert.equal((await rejection(task.report(), ReportError)).kind, "sending_paused");
});

import assert from "node:assert/strict";
import { test } from "node:test";

import { Bridge, BridgeCallError, ReportError, TASK_TYPES, type TaskFacts } from "anticaptcha-report-bridge";

import { Watch } from "#src/watch.js";

import { KEY, rejection, startFake } from "./support.js";

/** What the fake got, without envelopes. */
async function messages(bridge: Bridge): Promise<ReadonlyArray<readonly [string, unknown, boolean]>> {
  const { seen } = (await bridge.info()) as unknown as { seen: Array<{ id?: number; method: string; params: unknown }> };
  return seen.map(({ id, method, params }) => [method, params, id !== undefined]);
}

test("a task picks its method, tells when it was solved, and is noted once", async () => {
  await using bridge = await startFake("echo");
  const image = bridge.task({ taskId: 5, taskType: "ImageToTextTask", endTime: 1700000000, cost: 0.0007, languagePool: "en" });
  const token = bridge.task({ taskId: "6", taskType: "recaptchav3TASKproxyless", endTime: "1700000001", cost: "0.00200", clientKey: KEY });
  assert.equal((await image.reportWrong()).taskId, 5);
  assert.equal((await token.reportRight({ timeoutMs: 5_000 })).taskId, 6);
  await token.reportWrong();
  const recaptcha = { taskId: 6, taskType: "recaptchav3TASKproxyless", completedAt: 1700000001, clientKey: KEY };
  assert.deepEqual(await messages(bridge), [
    ["bridge.noteTasks", { taskType: "ImageToTextTask", cost: 0.0007 }, false],
    ["bridge.noteTasks", { taskType: "recaptchav3TASKproxyless", cost: 0.002, clientKey: KEY }, false],
    ["reportIncorrectImageCaptcha", { taskId: 5, taskType: "ImageToTextTask", completedAt: 1700000000, languagePool: "en" }, true],
    ["reportCorrectRecaptcha", recaptcha, true],
    ["reportIncorrectRecaptcha", recaptcha, true],
  ]);
});

test("each type of the table has the method that the table says, or is refused here", async () => {
  await using bridge = await startFake("echo");
  for (const [taskType, row] of Object.entries(TASK_TYPES)) {
    const task = bridge.task({ taskId: 7, taskType });
    for (const [method, report] of [
      [row.wrong, () => task.reportWrong()],
      [row.right, () => task.reportRight()],
    ] as const) {
      const before = (await messages(bridge)).length;
      if (method === null) {
        const error = await rejection(report(), ReportError);
        assert.deepEqual([error.code, error.kind, error.outcome, error.taskId], [-32012, "wrong_method", "not_sent", 7]);
      } else await report();
      assert.deepEqual((await messages(bridge)).slice(before).map(([name]) => name), method === null ? [] : [method]);
    }
  }
});

test("says why a task cannot be reported", async () => {
  await using bridge = await startFake("echo");
  for (const [taskType, direction, message] of [
    ["ImageToTextTask", "reportRight", "Nothing was sent: the vendor takes no reports of right answers about tasks of this type."],
    ["TurnstileTask", "reportWrong", "Nothing was sent: the vendor takes no reports about tasks of this type."],
    ["RecaptchaV3", "reportWrong", "Nothing was sent: this version does not know the task's type, so it cannot choose a method. Did you mean RecaptchaV3Task?"],
    ["ImageToTxtTask", "reportWrong", "so it cannot choose a method. Did you mean ImageToTextTask?"],
  ] as const) {
    const error = await rejection(bridge.task({ taskId: 9, taskType })[direction](), ReportError);
    assert.ok(error.message.startsWith(`${direction} of task 9: Nothing was sent: `), error.message);
    assert.ok(error.message.includes(`${message} (wrong_method)`), error.message);
  }
});

test("refuses facts that would lose digits or are none, without their value", async () => {
  await using bridge = await startFake("echo");
  const taskType = "ImageToTextTask";
  for (const facts of [
    { taskId: "9007199254740993", taskType },
    { taskId: " 5", taskType },
    { taskId: "", taskType },
    { taskId: 5, taskType, endTime: "yesterday" },
    { taskId: 5, taskType, cost: KEY },
    { taskId: 5, taskType, cost: -1 },
    { taskId: 5 },
  ]) {
    assert.throws(() => bridge.task(facts as TaskFacts), (error) => error instanceof TypeError && !error.message.includes(KEY));
  }
  for (const taskId of ["x", undefined, 5n]) {
    const message = "taskId must be a number, or a string of its digits.";
    assert.throws(() => bridge.task({ taskId: taskId as string, taskType }), { name: "TypeError", message });
  }
  assert.deepEqual(await messages(bridge), []);
});

test("noteTasks is a notification, or a request if its answer is wanted", async () => {
  await using bridge = await startFake("echo");
  bridge.noteTasks({ taskType: "ImageToTextTask", count: 80, cost: "0.056" });
  await bridge.noteTasks({ taskType: "ImageToTextTask" }, { answered: true, timeoutMs: 5_000 });
  assert.deepEqual(await messages(bridge), [
    ["bridge.noteTasks", { taskType: "ImageToTextTask", count: 80, cost: 0.056 }, false],
    ["bridge.noteTasks", { taskType: "ImageToTextTask" }, true],
  ]);
  bridge.noteTasks({ taskType: "ImageToTextTask", count: null, cost: null, clientKey: null });
  assert.deepEqual((await messages(bridge)).at(-1), ["bridge.noteTasks", { taskType: "ImageToTextTask" }, false]);
  for (const count of [0, -1, 1.5, "2"]) {
    assert.throws(() => bridge.noteTasks({ taskType: "ImageToTextTask", count: count as number }), TypeError);
  }
});

test("the notes of a second go together, one for each type, account and knowledge of the cost", async () => {
  await using bridge = await startFake("echo");
  const taskType = "ImageToTextTask";
  for (const cost of [1, 0.25, 0.5, undefined, undefined]) bridge.noteTasks({ taskType, cost });
  bridge.noteTasks({ taskType, count: 3, clientKey: KEY });
  bridge.noteTasks({ taskType, count: 1_000_000, clientKey: KEY }); // together they were more than a note may say
  const noted = [
    ["bridge.noteTasks", { taskType, cost: 1 }, false],
    ["bridge.noteTasks", { taskType, cost: 0.75, count: 2 }, false],
    ["bridge.noteTasks", { taskType, count: 2 }, false],
    ["bridge.noteTasks", { taskType, count: 3, clientKey: KEY }, false],
    ["bridge.noteTasks", { taskType, count: 1_000_000, clientKey: KEY }, false],
  ];
  assert.deepEqual(await messages(bridge), noted);
  bridge.noteTasks({ taskType, count: 7 });
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  bridge.noteTasks({ taskType, count: 8 });
  const [before, after] = (await messages(bridge)).slice(noted.length);
  assert.deepEqual([before?.[1], after?.[1]], [{ taskType, count: 7 }, { taskType, count: 8 }]);
});

test("what was noted last is sent before the bridge is closed", async () => {
  const told: string[] = [];
  const bridge = await startFake("tells", { onStderr: (line) => told.push(line) });
  for (let count = 0; count < 5; count += 1) bridge.noteTasks({ taskType: "A" });
  await bridge.close();
  assert.deepEqual(told, ['{"taskType":"A"}', '{"taskType":"A","count":4}']);
});

test("notes keep no memory while the bridge does not read, and start no other once it is closed", async () => {
  const bridge = await startFake("reads-no-more", { closeTimeoutMs: 100, restart: true });
  const before = process.memoryUsage().heapUsed;
  void bridge.reportIncorrectRecaptcha({ taskId: 1 }).catch(() => undefined);
  for (let count = 0; count < 500_000; count += 1) bridge.noteTasks({ taskType: "ImageToTextTask" });
  const grown = process.memoryUsage().heapUsed - before;
  assert.ok(grown < 64 * 1024 * 1024, String(grown));
  await bridge.close();
  bridge.noteTasks({ taskType: "ImageToTextTask" });
  assert.equal(bridge.state, "closed");
});

test("with restart, a note wakes the next child", async () => {
  await using bridge = await startFake("dies", { restart: { firstDelayMs: 1 } });
  await rejection(bridge.reportIncorrectRecaptcha({ taskId: 1 }), Error);
  bridge.noteTasks({ taskType: "ImageToTextTask" });
  assert.deepEqual((await messages(bridge)).map(([method]) => method), ["bridge.noteTasks"]);
});

test("pauses and advice are told once, from answers, errors and the status", async () => {
  const told: string[] = [];
  await using bridge = await startFake("advises", {
    onPause: ({ scope }) => told.push(scope),
    onAdvice: ({ kind }) => told.push(kind),
  });
  const refusal = (taskId: number): Promise<unknown> => rejection(bridge.reportIncorrectRecaptcha({ taskId }), ReportError);
  await bridge.reportIncorrectRecaptcha({ taskId: 1 });
  await Promise.all([refusal(2), refusal(2)]);
  await bridge.status();
  await bridge.status();
  assert.deepEqual(told, ["few_tasks", "quality", "key", "rate_high"]);
});

for (const [title, steps] of [
  ["what an answer told is not told by the status, though its figures have moved", ["warns 80", "status a81", "=80", "status a82", "="]],
  ["what the status told is not told by an answer, if its figures have not moved", ["status a80", "=80", "warns 80", "=", "status a80", "="]],
  ["two accounts are told of, whoever tells", ["warns 80", "warns 80", "=80 80", "status a81 b81", "="]],
  ["another account is told of, after that which an answer told", ["warns 80", "status a81", "=80", "status a81 b7", "=7"]],
  ["another account is told of, beside that which an answer told", ["warns 80", "=80", "status a80 b7", "=7", "status a81 b8", "="]],
  ["where nobody knows which account is new, both are told of", ["warns 80", "=80", "status a81 b7", "=81 7", "status a82 b8 c1", "=1"]],
] as const) {
  test(`advice is told once an hour: ${title}`, () => {
    let told: string[] = [];
    const watch = new Watch({ onAdvice: ({ message }) => told.push(message) });
    for (const step of steps) {
      const [what, ...figures] = step.split(" ");
      if (step.startsWith("=")) {
        assert.equal(told.join(" "), step.slice(1));
        told = [];
      } else if (what === "warns") watch.look({ warnings: figures.map((message) => ({ kind: "few_tasks", message })) });
      else watch.look({ advice: figures.map((each) => ({ kind: "few_tasks", account: each[0], message: each.slice(1) })) });
    }
  });
}

test("an error has the rule that was broken and the name that was meant", async () => {
  await using bridge = await startFake("advises");
  const call = (taskId: number): Promise<BridgeCallError> => rejection(bridge.reportIncorrectRecaptcha({ taskId }), BridgeCallError);
  const odd = await call(3);
  assert.deepEqual([odd.code, odd.rule, odd.suggestion], [-32600, "method", null]);
  assert.match(odd.message, /It is odd\. \(invalid_request\)$/);
  const unknown = await call(4);
  assert.deepEqual([unknown.code, unknown.rule, unknown.suggestion], [-32601, null, "bridge.info"]);
  assert.match(unknown.message, /Did you mean bridge\.info\? \(method_not_found\)$/);
});

test("a real bridge takes a task and its reports", async () => {
  await using bridge = await Bridge.start({ sandbox: true });
  const task = bridge.task({ taskId: "7654321", taskType: "RecaptchaV3TaskProxyless", endTime: String(Math.floor(Date.now() / 1000)), cost: "0.002" });
  assert.equal((await task.reportRight()).outcome, "accepted");
  assert.equal((await rejection(task.reportWrong(), ReportError)).kind, "task_conflict");
  assert.equal(bridge.protocolErrors, 0);
});

// JSON-RPC clients by other people against the bridge; the table in README.md says what each can do.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { test } from "node:test";

import { Client, ContentLengthMessageFramer, NewlineDelimitedMessageFramer, RequestManager } from "@open-rpc/client-js";
import { StdioTransport } from "@open-rpc/client-js/stdio";
import openRpc, { type MethodCallValidator as Validator } from "@open-rpc/schema-utils-js";
import { JSONRPCClient, type JSONRPCResponse } from "json-rpc-2.0";
import vscode from "vscode-jsonrpc/node.js";

import * as support from "./support.js";
import type { Call } from "./support.js";

test("vscode-jsonrpc: header framing, and cancelling by token", async (t) => {
  const child = support.startBridge();
  t.after(() => child.kill());
  const connection = vscode.createMessageConnection(
    new vscode.StreamMessageReader(child.stdout),
    new vscode.StreamMessageWriter(child.stdin),
  );
  connection.listen();
  const call: Call = (method, params) =>
    params === undefined ? connection.sendRequest(method) : connection.sendRequest(method, params);
  await support.callEverything(call);
  assert.equal(((await call("bridge.info")) as { framing: string }).framing, "header");
  await support.callAndBeRefused(call, (error) => error as vscode.ResponseError<unknown>);

  const slow = call("reportIncorrectRecaptcha", { taskId: support.SLOW_TASK });
  const source = new vscode.CancellationTokenSource();
  const cancelled = connection.sendRequest("reportIncorrectRecaptcha", { taskId: 50 }, source.token);
  await support.waitUntilQueued(call);
  source.cancel();
  const error = (await support.failure(cancelled)) as vscode.ResponseError<{ outcome: string }>;
  assert.deepEqual([error.code, error.data?.outcome], [-32800, "not_sent"]);
  assert.equal(((await slow) as { outcome: string }).outcome, "accepted");
  await support.endBridge(child);
  connection.dispose();
});

test("json-rpc-2.0: line framing, batches, and cancelling by hand", async (t) => {
  const child = support.startBridge();
  t.after(() => child.kill());
  const client = new JSONRPCClient((payload: unknown) => {
    child.stdin.write(`${JSON.stringify(payload)}\n`);
  });
  createInterface({ input: child.stdout }).on("line", (line) => {
    client.receive(JSON.parse(line) as JSONRPCResponse | JSONRPCResponse[]);
  });
  const call: Call = (method, params) => client.request(method, params as object);
  await support.callEverything(call);
  await support.callAndBeRefused(call, (error) => error as { code: number; data: unknown });

  const batch = await client.requestAdvanced(
    support.REPORT_METHODS.map((method, index) => ({ jsonrpc: "2.0" as const, id: 900 + index, method, params: { taskId: 20 + index } })),
  );
  const outcomes = batch.map((answer) => (answer.result as { outcome: string }).outcome);
  assert.deepEqual(outcomes, ["accepted", "accepted", "accepted", "accepted"]);

  const slow = call("reportIncorrectRecaptcha", { taskId: support.SLOW_TASK });
  const params = { taskId: 50 };
  const cancelled = client.requestAdvanced({ jsonrpc: "2.0", id: "mine", method: "reportIncorrectRecaptcha", params });
  await support.waitUntilQueued(call);
  client.notify("$/cancelRequest", { id: "mine" });
  assert.equal((await cancelled).error?.code, -32800);
  assert.equal(((await slow) as { outcome: string }).outcome, "accepted");
  await support.endBridge(child);
});

for (const [framing, framer] of [
  ["line", () => new NewlineDelimitedMessageFramer()],
  ["header", () => new ContentLengthMessageFramer()],
] as const) {
  test(`@open-rpc/client-js: ${framing} framing, and batches`, async (t) => {
    const transport = new StdioTransport({ command: support.PROGRAM, args: support.ARGS, framer: framer() });
    const client = new Client(new RequestManager([transport]));
    t.after(() => client.close());
    // Without params this client writes an empty array, which is no params by name.
    const call: Call = (method, params = {}) => client.request({ method, params });
    await support.callEverything(call);
    assert.equal(((await call("bridge.info")) as { framing: string }).framing, framing);
    await support.callAndBeRefused(call, (error) => error as { code: number; data: unknown });

    client.startBatch();
    const batch = support.REPORT_METHODS.map((method, index) => call(method, { taskId: 20 + index }));
    client.stopBatch();
    for (const result of await Promise.all(batch)) assert.equal((result as { outcome: string }).outcome, "accepted");
  });
}

test("the OpenRPC meta-schema accepts the document, and refuses a broken one", () => {
  const file = new URL("../../../../../schemas/openrpc.json", import.meta.url);
  const document = JSON.parse(readFileSync(file, "utf8")) as Document;
  assert.equal(openRpc.validateOpenRPCDocument(document), true);
  const broken = { ...document, methods: [{ ...document.methods[0], params: "none" }] } as unknown as Document;
  assert.notEqual(openRpc.validateOpenRPCDocument(broken), true);
});

type Document = Parameters<typeof openRpc.validateOpenRPCDocument>[0];
type Method = Extract<Document["methods"][number], { name: string }>;

test("a generic client, driven by rpc.discover alone, calls every method and finds every answer as described", async (t) => {
  const transport = new StdioTransport({ command: support.PROGRAM, args: support.ARGS });
  const client = new Client(new RequestManager([transport]));
  t.after(() => client.close());
  const document = await openRpc.dereferenceDocument((await client.request({ method: "rpc.discover", params: {} })) as Document);
  assert.equal(openRpc.validateOpenRPCDocument(document), true);
  const params = new openRpc.MethodCallValidator(document);
  const results = resultValidator(document);
  const called: string[] = [];
  const methods = (document.methods as Method[]).filter((method) => "name" in method);
  // Reports first, so that there is something to look up.
  methods.sort((a, b) => Number(isReport(b.name)) - Number(isReport(a.name)));
  for (const method of methods) {
    const { name } = method;
    if (method.result === undefined) continue; // OpenRPC's sign of a notification
    // Every method takes the same task, except reports: a task takes one report.
    const taskId = isReport(name) ? 100 + called.length : 100;
    const required = method.params.filter((param) => "required" in param && param.required === true);
    const nameOf = (param: object): string => ("name" in param ? String(param.name) : "");
    const given = Object.fromEntries(
      required.map((param) => [nameOf(param), nameOf(param) === "taskType" ? "ImageToTextTask" : taskId]),
    );
    assert.deepEqual(params.validate(name, given), [], name);
    const result: unknown = await client.request({ method: name, params: given });
    assert.deepEqual(results.validate(name, { result }), [], name);
    called.push(name);
  }
  const wrong = params.validate("reportIncorrectRecaptcha", { taskId: "5" });
  assert.ok(Array.isArray(wrong) && wrong.length === 1);
  assert.equal(called.length, 11);
});

const isReport = (name: string): boolean => name.startsWith("report");

/** The validator checks params only, so results are shown to it as params of the same name. */
function resultValidator(document: Document): Validator {
  const methods = document.methods.map((method) => {
    if (!("result" in method) || method.result === undefined || !("schema" in method.result)) return method;
    return { ...method, params: [{ name: "result", required: true, schema: method.result.schema }] };
  });
  return new openRpc.MethodCallValidator({ ...document, methods } as Document);
}

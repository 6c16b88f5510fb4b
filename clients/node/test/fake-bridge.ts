// A bridge that behaves in one chosen way; run as `node fake-bridge.js BEHAVIOUR`. It shares no code with the package.
import { spawn } from "node:child_process";

interface Request {
  readonly id?: number;
  readonly method: string;
  readonly params?: { readonly taskId?: number };
}

const behaviour = process.argv[2] ?? "";
const out = (text: string | Buffer): void => void process.stdout.write(text);
const answer = (id: number | undefined, result: unknown): string => JSON.stringify({ jsonrpc: "2.0", id, result });
const accepted = (request: Request): unknown => ({
  status: "success",
  taskId: request.params?.taskId,
  outcome: "accepted",
  attempts: 1,
  replayed: false,
  durable: true,
  elapsedMs: 1,
});
const good = (request: Request): string => answer(request.id, accepted(request));
const held: Request[] = [];
/** Every message but bridge.info, which tells them. */
const seen: Request[] = [];
const pause = { scope: "quality", cause: "no_such_captcha", openedAt: "2026-01-02T03:04:05Z", endsAt: null, manual: false };
const advice = { kind: "few_tasks", message: "80 tasks in 24 h; under 100 all reports are ignored." };
const refused = (request: Request, code: number, data: object): void =>
  out(`${JSON.stringify({ jsonrpc: "2.0", id: request.id, error: { code, message: "No.", data } })}\n`);
let grandchild: number | undefined;

const onReport: Record<string, (request: Request) => void> = {
  echo: (request) => out(`${good(request)}\n`),
  silent: () => undefined,
  chatty: (request) => {
    process.stderr.write("a line about another task\n");
    if (request.params?.taskId === 1) out(`${good(request)}\n`);
  },
  advises: (request) => {
    const { taskId } = request.params ?? {};
    const warnings = [{ kind: "unknown_task_type", message: "Unknown." }, advice];
    const report = { outcome: "not_sent", retryable: false, attempts: 0, replayed: false, durable: true };
    if (taskId === 1) out(`${answer(request.id, { ...(accepted(request) as object), warnings })}\n`);
    else if (taskId === 2) refused(request, -32021, { kind: "sending_paused", ...report, pause });
    else if (taskId === 3) refused(request, -32600, { kind: "invalid_request", rule: "method", sentence: "It is odd." });
    else refused(request, -32601, { kind: "method_not_found", suggestion: "bridge.info" });
  },
  garbage: (request) => out(`no JSON\n[]\n\n{"jsonrpc":"2.0"}\n"text"\n${answer(12345, 1)}\n${good(request)}\n`),
  twice: (request) => out(`${good(request)}\n${good(request)}\n`),
  crlf: (request) => out(`${good(request)}\r\n\r\n`),
  batch: (request) => out(`[${good(request)}]\n`),
  "wrong-shape": (request) => out(`${JSON.stringify({ jsonrpc: "2.0", id: request.id, error: "no object" })}\n`),
  "closes-stdout": () => process.stdout.end(),
  reversed: (request) => {
    held.unshift(request);
    if (held.length === 3) for (const each of held) out(`${good(each)}\n`);
  },
  "byte-by-byte": (request) => {
    const result = { ...(accepted(request) as object), warnings: [{ kind: "x", message: "a\u2028b\u0085c\u{1f642}é" }] };
    for (const byte of Buffer.from(`${answer(request.id, result)}\n`)) out(Buffer.from([byte]));
  },
  "floods-stderr": (request) => {
    for (let line = 0; line < 200_000; line += 1) process.stderr.write(`line ${line} of many\n`);
    process.stderr.write("x".repeat(1_000_000));
    out(`${good(request)}\n`);
  },
  "floods-stdout": (request) => {
    for (let part = 0; part < 20; part += 1) out("y".repeat(1024 * 1024));
    out(`\n${good(request)}\n`);
  },
  dies: () => {
    for (let line = 1; line <= 30; line += 1) process.stderr.write(`last words ${line}\n`);
    process.exitCode = 7;
    process.stdin.destroy();
  },
  "dies-of-a-signal": () => void process.kill(process.pid, "SIGKILL"),
  "leaks-key": () => {
    process.stderr.write(`my key is ${process.env["ANTICAPTCHA_CLIENT_KEY"] ?? "not there"}\n`);
    out(`garbage with ${process.env["ANTICAPTCHA_CLIENT_KEY"] ?? "no key"}\n`);
    process.exitCode = 1;
    process.stdin.destroy();
  },
  stubborn: () => undefined,
  "reads-no-more": () => process.stdin.pause(),
  "answers-late": (request) => void setTimeout(() => out(`${good(request)}\n`), 300),
};

function onRequest(request: Request): void {
  if (request.method === "bridge.info") {
    const limits = { drainSeconds: 0.2, maxMessage: 4_096 };
    const protocol = behaviour === "wrong-protocol" ? 2 : 1;
    const argv = process.argv.slice(2);
    const key = process.env["ANTICAPTCHA_CLIENT_KEY"];
    const ledger = process.env["REPORT_BRIDGE_LEDGER"];
    const info = { name: "fake", protocol, pid: process.pid, limits, argv, key, ledger, grandchild, seen };
    out(`${answer(request.id, info)}\n`);
    return;
  }
  seen.push(request);
  if (behaviour === "tells") process.stderr.write(`${JSON.stringify(request.params)}\n`);
  if (request.method === "bridge.noteTasks" && request.id !== undefined) out(`${answer(request.id, {})}\n`);
  if (behaviour === "advises" && request.method === "bridge.status") {
    out(`${answer(request.id, { pauses: [{ ...pause, scope: "key" }], advice: [{ ...advice, account: "a" }, { ...advice, kind: "rate_high", account: "a" }] })}\n`);
  }
  if (request.method.startsWith("report")) (onReport[behaviour] ?? onReport["echo"])?.(request);
}

if (behaviour === "dies-at-start") {
  process.stderr.write("the configuration cannot be used\n");
  process.exit(3);
}
if (behaviour === "reads-no-more") setInterval(() => undefined, 1_000);
if (behaviour === "stubborn") {
  process.on("SIGTERM", () => undefined);
  setInterval(() => undefined, 1_000);
  grandchild = spawn(process.execPath, ["-e", "setInterval(() => undefined, 1000)"], { stdio: "inherit" }).pid;
}
if (behaviour === "drains") {
  process.on("SIGTERM", () => setTimeout(() => process.exit(0), 300));
  setInterval(() => undefined, 1_000);
}
if (behaviour === "closes-stdout") process.stdin.on("end", () => process.exit(74));

let rest = "";
process.stdin.setEncoding("utf8");
process.stdin.on("data", (chunk: string) => {
  const lines = (rest + chunk).split("\n");
  rest = lines.pop() ?? "";
  if (behaviour === "mute") return;
  const delayMs = behaviour === "slow-start" ? 1_500 : 0;
  for (const line of lines) {
    if (delayMs > 0) setTimeout(() => onRequest(JSON.parse(line) as Request), delayMs);
    else onRequest(JSON.parse(line) as Request);
  }
});

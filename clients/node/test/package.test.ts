// The tarball as its users get it: installed into an empty folder, imported, required, and checked by their TypeScript.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { before, test } from "node:test";
import { fileURLToPath } from "node:url";

const PACKAGE = fileURLToPath(new URL("../../..", import.meta.url));
const find = (name: string): string => dirname(createRequire(import.meta.url).resolve(`${name}/package.json`));
const TYPES = dirname(find("@types/node"));
const folder = mkdtempSync(join(tmpdir(), "package-"));

function run(file: string, args: readonly string[], cwd = folder): string {
  try {
    return execFileSync(file, [...args], { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  } catch (error) {
    const { stdout, stderr } = error as { stdout?: string; stderr?: string };
    throw new Error(`${file} ${args.join(" ")} failed\n${stdout ?? ""}${stderr ?? ""}`);
  }
}

const BOT = `
async function main() {
  const bridge = await Bridge.start({ sandbox: true });
  const result = await bridge.task({ taskId: "5", taskType: "ImageToTextTask" }).reportWrong();
  console.log(result.taskId, result.outcome);
  await bridge.close();
}
void main();
`;
const TYPED = `
import { Bridge, BridgeError, ReportError, type ReportResult, type Task, type TaskFacts } from "anticaptcha-report-bridge";
export async function report(facts: TaskFacts, maybe?: number, text?: string): Promise<ReportResult | null> {
  const bridge: Bridge = await Bridge.start({ sandbox: true, onPause: ({ scope }) => console.log(scope.length) });
  // @ts-expect-error: an option that does not exist
  void Bridge.start({ keyfile: "" });
  bridge.noteTasks({ taskType: "ImageToTextTask", count: 2 });
  // What the environment and the vendor may not have told is given as it is; in params null is left out, too.
  void Bridge.start({ path: text, keyFile: text, timeoutMs: maybe, restart: { maxDelayMs: maybe } });
  void bridge.reportIncorrectRecaptcha({ taskId: 5, completedAt: maybe, clientKey: text }, { timeoutMs: maybe, signal: undefined });
  void bridge.reportIncorrectImageCaptcha({ taskId: 5, completedAt: null, languagePool: null });
  void bridge.listReports({ since: null, cursor: text });
  bridge.noteTasks({ taskType: "ImageToTextTask", count: null, cost: null, clientKey: null });
  bridge.task({ taskId: "5", taskType: "ImageToTextTask", endTime: null, cost: null, languagePool: null, clientKey: null });
  const task: Task = bridge.task(facts);
  try {
    return await task.reportWrong({ timeoutMs: 1 });
  } catch (error) {
    if (error instanceof ReportError) return error.hints.length > 0 ? null : await task.reportRight();
    throw error instanceof BridgeError ? error : new Error("other");
  } finally {
    await bridge.close();
  }
}
`;

before(() => {
  run("npm", ["pack", "--ignore-scripts", "--pack-destination", folder], PACKAGE);
  const tarball = readdirSync(folder).find((name) => name.endsWith(".tgz"));
  const { version } = JSON.parse(readFileSync(join(PACKAGE, "package.json"), "utf8")) as { version: string };
  assert.equal(tarball, `anticaptcha-report-bridge-${version}.tgz`);
  writeFileSync(join(folder, "package.json"), "{}\n");
  run("npm", ["install", "--offline", "--ignore-scripts", "--no-audit", "--no-fund", `./${tarball}`]);
});

test("the tarball has two builds, the licence and nothing of the tests", () => {
  const installed = readdirSync(join(folder, "node_modules", "anticaptcha-report-bridge"), { recursive: true }).map(String);
  assert.deepEqual(readdirSync(join(folder, "node_modules")).filter((name) => !name.startsWith(".")), ["anticaptcha-report-bridge"]);
  assert.ok(installed.includes("LICENSE") && installed.includes("README.md"));
  assert.deepEqual(installed.filter((name) => /dev|test|\.map$/.test(name)), []);
});

for (const [name, line] of [
  ["bot.mjs", 'import { Bridge } from "anticaptcha-report-bridge";'],
  ["bot.cjs", 'const { Bridge } = require("anticaptcha-report-bridge");'],
] as const) {
  test(`${name} reports with the installed package`, () => {
    writeFileSync(join(folder, name), line + BOT);
    assert.equal(run(process.execPath, [name]), "5 accepted\n");
  });
}

for (const [resolution, module, type, compiler] of [
  ["nodenext", "nodenext", "module", "typescript"],
  ["nodenext", "nodenext", "commonjs", "typescript"],
  ["node10", "commonjs", "commonjs", "typescript-5"], // the last one that knows it
  ["bundler", "esnext", "module", "typescript"],
] as const) {
  test(`strict TypeScript takes the types (${resolution}, ${type})`, () => {
    const project = join(folder, `${resolution}-${type}`);
    mkdirSync(project);
    writeFileSync(join(project, "package.json"), JSON.stringify({ type }));
    writeFileSync(join(project, "bot.ts"), TYPED);
    const flags = ["--strict", "--exactOptionalPropertyTypes", "--noEmit", "--skipDefaultLibCheck", "--target", "es2022", "--lib", "es2022,esnext.disposable"];
    run(process.execPath, [join(find(compiler), "bin/tsc"), ...flags, "--module", module, "--moduleResolution", resolution, "--typeRoots", TYPES, "--types", "node", "bot.ts"], project);
  });
}

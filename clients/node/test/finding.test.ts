// The order in which an installed package looks for the program, with programs that only say who they are.
import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { isAlive, waitUntil } from "./support.js";

const PACKAGE = fileURLToPath(new URL("../../..", import.meta.url));
const PLATFORM = `anticaptcha-report-bridge-${process.platform}-${process.arch}`;
const folder = mkdtempSync(join(tmpdir(), "finding-"));
const modules = join(folder, "node_modules");
const path = join(folder, "path");

/** Writes a program that answers every request with its name and its arguments. As a Python it has the package. */
function plant(file: string): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(
    file,
    `#!/bin/sh
[ "$2" = -c ] && exit 0
id=0
while read -r line; do
  id=$((id + 1))
  printf '{"jsonrpc":"2.0","id":%s,"result":{"protocol":1,"name":"%s","args":"%s"}}\\n' $id "\${0##*/}" "$*"
done
`,
  );
  chmodSync(file, 0o755);
}

/** Name and arguments of the program that a bot finds. */
function find(kind: "mjs" | "cjs", env: NodeJS.ProcessEnv = {}): string {
  const done = spawnSync(process.execPath, [`bot.${kind}`], { cwd: folder, encoding: "utf8", env: { PATH: path, ...env } });
  return done.status === 0 ? done.stdout.trim() : done.stderr;
}

before(() => {
  execFileSync("npm", ["pack", "--ignore-scripts", "--pack-destination", folder], { cwd: PACKAGE, stdio: "ignore" });
  const tarball = readdirSync(folder).find((name) => name.endsWith(".tgz")) ?? "";
  writeFileSync(join(folder, "package.json"), "{}\n");
  execFileSync("npm", ["install", "--offline", "--ignore-scripts", "--no-audit", "--no-fund", `./${tarball}`], { cwd: folder, stdio: "ignore" });
  const bot = `
    Bridge.start({ args: ["--flag"] }).then(async (bridge) => {
      const { name, args } = await bridge.info();
      console.log(name, args);
      await bridge.close();
    }, (error) => { console.error(error.message); process.exitCode = 1; });`;
  writeFileSync(join(folder, "bot.mjs"), `import { Bridge } from "anticaptcha-report-bridge";${bot}`);
  writeFileSync(join(folder, "bot.cjs"), `const { Bridge } = require("anticaptcha-report-bridge");${bot}`);
});

for (const kind of ["mjs", "cjs"] as const) {
  test(`package, variable, PATH and Python are tried in this order (${kind})`, () => {
    const variable = { REPORT_BRIDGE_BIN: join(folder, "variable") };
    plant(join(path, "python"));
    assert.equal(find(kind), "python -P -m bridge --flag");
    plant(join(path, "report-bridge"));
    assert.equal(find(kind), "report-bridge --flag");
    assert.match(find(kind, variable), /variable \(REPORT_BRIDGE_BIN\)/);
    plant(variable.REPORT_BRIDGE_BIN);
    assert.equal(find(kind, variable), "variable --flag");
    plant(join(modules, PLATFORM, "program"));
    writeFileSync(join(modules, PLATFORM, "index.js"), 'module.exports = require("node:path").join(__dirname, "program");');
    assert.equal(find(kind, variable), "program --flag");
    rmSync(join(modules, PLATFORM, "program"));
    assert.equal(find(kind, variable), "variable --flag");
    rmSync(join(modules, PLATFORM), { recursive: true });
    rmSync(variable.REPORT_BRIDGE_BIN);
    rmSync(path, { recursive: true });
  });
}

test("a Python without the package is none, and is not told the key", () => {
  mkdirSync(path, { recursive: true });
  writeFileSync(join(path, "python3"), '#!/bin/sh\nset > "$0.seen"\nexit 1\n', { mode: 0o755 });
  const secrets = { ANTICAPTCHA_CLIENT_KEY: "a-secret", REPORT_BRIDGE_LEDGER_PASSWORD: "a-secret" };
  assert.match(find("mjs", secrets), /python3 \(PATH, with the Python package/);
  assert.doesNotMatch(readFileSync(join(path, "python3.seen"), "utf8"), /a-secret/);
});

test("the command of the package is the program: arguments, streams and exit code", () => {
  const file = join(folder, "counts");
  writeFileSync(file, '#!/bin/sh\nread -r line\necho "$* $line"\nexit 75\n', { mode: 0o755 });
  const command = join(modules, ".bin", "anticaptcha-report-bridge");
  const env = { PATH: dirname(process.execPath), REPORT_BRIDGE_BIN: file };
  const done = spawnSync(command, ["serve", "--sandbox"], { env, encoding: "utf8", input: "a line\n" });
  assert.deepEqual([done.status, done.stdout], [75, "serve --sandbox a line\n"]);
  const lost = spawnSync(command, { env: { ...env, REPORT_BRIDGE_BIN: "/nowhere" }, encoding: "utf8" });
  assert.equal(lost.status, 127);
  assert.match(lost.stderr, /\/nowhere \(REPORT_BRIDGE_BIN\)/);
});

for (const signal of ["SIGTERM", "SIGKILL"] as const) {
  test(`a killed command (${signal}) leaves no program behind`, async () => {
    const command = join(modules, ".bin", "anticaptcha-report-bridge");
    const child = spawn(command, ["--sandbox"], { env: process.env, stdio: ["pipe", "pipe", "ignore"] });
    child.stdin.write('{"jsonrpc":"2.0","id":1,"method":"bridge.info"}\n');
    const [line] = (await once(child.stdout, "data")) as [Buffer];
    const { pid } = (JSON.parse(line.toString()) as { result: { pid: number } }).result;
    assert.ok(isAlive(pid) && pid !== child.pid);
    child.kill(signal);
    await waitUntil(() => !isAlive(pid));
  });
}

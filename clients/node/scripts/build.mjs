// Builds the package twice, for `import` and for `require`; each folder says which of the two it is.
import { execFileSync } from "node:child_process";
import { rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const tsc = `${dirname(createRequire(import.meta.url).resolve("typescript/package.json"))}/bin/tsc`;

rmSync(`${root}/dist`, { recursive: true, force: true });
for (const [project, folder, type, here] of [
  [
    "tsconfig.json",
    "esm",
    "module",
    'import { createRequire } from "node:module";\nexport const requireHere = createRequire(import.meta.url);',
  ],
  ["tsconfig.cjs.json", "cjs", "commonjs", "exports.requireHere = require;"],
]) {
  execFileSync(process.execPath, [tsc, "-p", project], { cwd: root, stdio: "inherit" });
  writeFileSync(`${root}/dist/${folder}/package.json`, `${JSON.stringify({ type })}\n`);
  writeFileSync(`${root}/dist/${folder}/here.js`, `${here}\n`);
}

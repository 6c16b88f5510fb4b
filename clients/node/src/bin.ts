#!/usr/bin/env node
/** The command of this package: starts the program that it finds, and ends as that does. For `npx` and scripts. */

import { spawn } from "node:child_process";
import { constants } from "node:os";

import { buildCommand, explainFailedStart, type Command } from "./command.js";

const NOT_FOUND = 127;

function find(): Command {
  try {
    return buildCommand({ args: process.argv.slice(2) });
  } catch (error) {
    return leave(error instanceof Error ? error.message : String(error));
  }
}

function leave(reason: string): never {
  console.error(reason);
  process.exit(NOT_FOUND);
}

const { file, args, env } = find();
// The streams are handed on as they are: when the last writer of the input is gone, the program ends, whoever lives.
const child = spawn(file, [...args], { env, stdio: "inherit" });
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => child.kill(signal));
child.on("error", (error: NodeJS.ErrnoException) => leave(explainFailedStart(file, error.code ?? "unknown reason")));
child.on("exit", (code, signal) => process.exit(code ?? 128 + constants.signals[signal ?? "SIGKILL"]));

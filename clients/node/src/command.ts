/** Finds the bridge's program and turns options into its arguments and environment. Starts nothing. */

import { accessSync, closeSync, constants, openSync, readSync, statSync } from "node:fs";
import { delimiter, isAbsolute, join } from "node:path";

import { BridgeNotFoundError, INSTALL } from "./errors.js";

/** What to start, and with which settings. Settings left out are the bridge's own defaults. */
export interface CommandOptions {
  /** The program; default: the variable REPORT_BRIDGE_BIN, else `report-bridge` on PATH. */
  readonly path?: string;
  /** Arguments that come before all others, such as `["--concurrency", "8"]`. */
  readonly args?: readonly string[];
  /** Added to this process's environment; undefined takes a variable away. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Runs without an account: nothing reaches the real upstream. */
  readonly sandbox?: boolean;
  /** Address of the upstream; plain http only for loopback. */
  readonly url?: string;
  /** Path of a file, `memory`, or the URL of a server. */
  readonly ledger?: string;
  /** File that holds the account key. */
  readonly keyFile?: string;
  /** The account key itself; travels in the child's environment, never in its arguments. */
  readonly clientKey?: string;
}

export interface Command {
  readonly file: string;
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
}

const IS_WINDOWS = process.platform === "win32";

/** Throws BridgeNotFoundError, or TypeError if the options contradict each other. */
export function buildCommand(options: CommandOptions): Command {
  if (options.clientKey !== undefined && options.keyFile !== undefined) {
    throw new TypeError("Give clientKey or keyFile, not both.");
  }
  const env: NodeJS.ProcessEnv = { ...process.env };
  const added = { ...options.env };
  if (options.clientKey !== undefined) {
    // Both key variables at once are an error of the bridge, so an inherited file gives way.
    added["ANTICAPTCHA_CLIENT_KEY"] = options.clientKey;
    added["ANTICAPTCHA_CLIENT_KEY_FILE"] = undefined;
  }
  // A ledger's URL may hold a password, which does not belong into the list of processes.
  const ledgerIsUrl = options.ledger?.includes("://") === true;
  if (ledgerIsUrl) added["REPORT_BRIDGE_LEDGER"] = options.ledger;
  for (const [name, value] of Object.entries(added)) {
    if (value === undefined) delete env[name];
    else env[name] = value;
  }
  const args = [...(options.args ?? [])];
  if (options.sandbox === true) args.push("--sandbox");
  if (options.url !== undefined) args.push("--url", options.url);
  if (options.ledger !== undefined && !ledgerIsUrl) args.push("--ledger", options.ledger);
  if (options.keyFile !== undefined) args.push("--key-file", options.keyFile);
  return { file: findProgram(options.path, env), args, env };
}

/** Says why a file that is there could not be started, and what to do. */
export function explainFailedStart(file: string, code: string): string {
  const interpreter = code === "ENOENT" ? readInterpreter(file) : null;
  const reason =
    interpreter === null
      ? `${file} could not be started (${code})`
      : `${file} could not be started: ${interpreter}, which its first line names, does not exist`;
  return `${reason}\n${INSTALL}`;
}

/** The interpreter of a script; null if the file is none. */
function readInterpreter(file: string): string | null {
  const start = Buffer.alloc(256);
  try {
    const opened = openSync(file, "r");
    readSync(opened, start);
    closeSync(opened);
  } catch {
    return null;
  }
  return /^#![ \t]*([^\s]+)/.exec(start.toString("latin1"))?.[1] ?? null;
}

function findProgram(path: string | undefined, env: NodeJS.ProcessEnv): string {
  const tried: string[] = [];
  const fromVariable = env["REPORT_BRIDGE_BIN"];
  const [source, name] =
    path !== undefined
      ? ["option path", path]
      : fromVariable !== undefined && fromVariable !== ""
        ? ["REPORT_BRIDGE_BIN", fromVariable]
        : ["PATH", "report-bridge"];
  for (const candidate of listCandidates(name, env)) {
    tried.push(`${candidate} (${source})`);
    if (isProgram(candidate)) return candidate;
  }
  if (tried.length === 0) tried.push(`${name} (PATH is empty)`);
  throw new BridgeNotFoundError(tried);
}

function listCandidates(name: string, env: NodeJS.ProcessEnv): string[] {
  const names = IS_WINDOWS && !/\.(exe|com)$/i.test(name) ? [`${name}.exe`, name] : [name];
  if (isAbsolute(name) || name.includes("/") || (IS_WINDOWS && name.includes("\\"))) return names;
  const pathName = IS_WINDOWS ? Object.keys(env).find((key) => key.toUpperCase() === "PATH") : "PATH";
  const folders = (env[pathName ?? "PATH"] ?? "").split(delimiter).filter((folder) => folder !== "");
  return [...new Set(folders)].flatMap((folder) => names.map((each) => join(folder, each)));
}

function isProgram(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

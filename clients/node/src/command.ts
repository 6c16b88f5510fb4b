/** Finds the bridge's program and turns options into its arguments and environment. Starts nothing. */

import { spawnSync } from "node:child_process";
import { accessSync, closeSync, constants, existsSync, openSync, readSync, statSync } from "node:fs";
import { delimiter, isAbsolute, join } from "node:path";

import { BridgeNotFoundError, INSTALL } from "./errors.js";
import { requireHere } from "./here.js";

/** What to start, and with which settings. Settings left out are the bridge's own defaults. */
export interface CommandOptions {
  /**
   * The program; default: that of the package for this platform, else the variable REPORT_BRIDGE_BIN, else
   * `report-bridge` on PATH, else a Python there that has it.
   */
  readonly path?: string | undefined;
  /** Arguments that come before all others, such as `["--concurrency", "8"]`. */
  readonly args?: readonly string[] | undefined;
  /** Added to this process's environment; undefined takes a variable away. */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined;
  /** Runs without an account: nothing reaches the real upstream. */
  readonly sandbox?: boolean | undefined;
  /** Address of the upstream; plain http only for loopback. */
  readonly url?: string | undefined;
  /** Path of a file, `memory`, or the URL of a server. */
  readonly ledger?: string | undefined;
  /** File that holds the account key. */
  readonly keyFile?: string | undefined;
  /** The account key itself; travels in the child's environment, never in its arguments. */
  readonly clientKey?: string | undefined;
}

export interface Command {
  readonly file: string;
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
}

const IS_WINDOWS = process.platform === "win32";
/** An optional dependency: its main module is the path of a program that needs no Python. */
const PLATFORM_PACKAGE = `anticaptcha-report-bridge-${process.platform}-${process.arch}`;
/** Asks a Python whether it has the program. -P (3.11) keeps files beside the bot from being taken for it. */
const ASK_PYTHON = ["-P", "-c", "import importlib.metadata; importlib.metadata.version('anticaptcha-report-bridge')"];
const RUN_PYTHON = ["-P", "-m", "bridge"];
const ASK_PYTHON_MS = 5_000;

/** Throws BridgeNotFoundError, or TypeError if the options contradict each other. */
export function buildCommand(options: CommandOptions): Command {
  if (options.clientKey !== undefined && options.keyFile !== undefined) {
    throw new TypeError("Give clientKey or keyFile, not both.");
  }
  const env: NodeJS.ProcessEnv = { ...process.env };
  const added = { ...options.env };
  if (options.clientKey !== undefined) {
    // Two sources of the key at once are an error of the bridge, so those in the environment give way.
    added["ANTICAPTCHA_CLIENT_KEY"] = options.clientKey;
    added["ANTICAPTCHA_CLIENT_KEY_FILE"] = undefined;
    added["REPORT_BRIDGE_KEY_COMMAND"] = undefined;
  }
  // A ledger's URL may hold a password, which does not belong into the list of processes.
  const ledgerIsUrl = options.ledger?.includes("://") === true;
  if (ledgerIsUrl) added["REPORT_BRIDGE_LEDGER"] = options.ledger;
  for (const [name, value] of Object.entries(added)) {
    if (value === undefined || value === null) delete env[name];
    else env[name] = value;
  }
  const args = [...(options.args ?? [])];
  if (options.sandbox === true) args.push("--sandbox");
  if (options.url !== undefined) args.push("--url", options.url);
  if (options.ledger !== undefined && !ledgerIsUrl) args.push("--ledger", options.ledger);
  if (options.keyFile !== undefined) args.push("--key-file", options.keyFile);
  const program = findProgram(options.path, env);
  return { file: program.file, args: [...program.args, ...args], env };
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

/** A place that was named and is wrong is an error: the next one is not tried. */
function findProgram(path: string | undefined, env: NodeJS.ProcessEnv): Pick<Command, "file" | "args"> {
  const tried: string[] = [];
  const search = (name: string, source: string, suits = isProgram): string | null => {
    const candidates = listCandidates(name, env);
    if (candidates.length === 0) tried.push(`${name} (${source} is empty)`);
    for (const candidate of candidates) {
      if (suits(candidate)) return candidate;
      tried.push(describePlace(candidate, source));
    }
    return null;
  };
  const variable = env["REPORT_BRIDGE_BIN"];
  let file: string | null;
  if (path !== undefined) file = search(path, "option path");
  else {
    file = findPlatformProgram(tried);
    if (file === null && variable !== undefined && variable !== "") file = search(variable, "REPORT_BRIDGE_BIN");
    else if (file === null) {
      file = search("report-bridge", "PATH");
      if (file === null) return { file: findPython(search, env, tried), args: RUN_PYTHON };
    }
  }
  if (file === null) throw new BridgeNotFoundError(tried);
  return { file, args: [] };
}

function findPlatformProgram(tried: string[]): string | null {
  try {
    const file = requireHere(PLATFORM_PACKAGE);
    if (typeof file === "string" && isProgram(file)) return file;
    tried.push(describePlace(String(file), `package ${PLATFORM_PACKAGE}`));
  } catch {
    tried.push(`package ${PLATFORM_PACKAGE} (not installed)`);
  }
  return null;
}

function findPython(
  search: (name: string, source: string, suits: (file: string) => boolean) => string | null,
  env: NodeJS.ProcessEnv,
  tried: string[],
): string {
  // It may be anybody's: what is secret is for the bridge only.
  const asked = { ...env, ANTICAPTCHA_CLIENT_KEY: undefined, REPORT_BRIDGE_LEDGER_PASSWORD: undefined };
  const has = (file: string): boolean =>
    isProgram(file) && spawnSync(file, ASK_PYTHON, { env: asked, stdio: "ignore", timeout: ASK_PYTHON_MS }).status === 0;
  for (const name of ["python3", "python"]) {
    const file = search(name, "PATH, with the Python package anticaptcha-report-bridge", has);
    if (file !== null) return file;
  }
  throw new BridgeNotFoundError(tried);
}

function listCandidates(name: string, env: NodeJS.ProcessEnv): string[] {
  const names = IS_WINDOWS && !/\.(exe|com)$/i.test(name) ? [`${name}.exe`, name] : [name];
  if (isAbsolute(name) || name.includes("/") || (IS_WINDOWS && name.includes("\\"))) return names;
  const pathName = IS_WINDOWS ? Object.keys(env).find((key) => key.toUpperCase() === "PATH") : "PATH";
  const folders = (env[pathName ?? "PATH"] ?? "").split(delimiter).filter((folder) => folder !== "");
  return [...new Set(folders)].flatMap((folder) => names.map((each) => join(folder, each)));
}

/** A place that was looked at, with what keeps a file there from being started. */
function describePlace(file: string, source: string): string {
  const place = `${file} (${source})`;
  if (isProgram(file) || !existsSync(file)) return place;
  return `${place}: it is there, but not ${statSync(file).isFile() ? "executable" : "a file"}`;
}

function isProgram(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

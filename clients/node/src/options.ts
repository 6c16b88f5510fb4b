/** Refuses options that do not exist, with the one that was perhaps meant, and values of another kind. */

import { isRecord } from "./errors.js";
import { meant } from "./names.js";

/** What an option must be, in words, and whether a value is that. */
export type Rule = readonly [must: string, suits: (value: unknown) => boolean];

/** The longest time that a timer of Node holds, 24 days; with a longer one it would fire at once. */
export const MAX_TIMER_MS = 2 ** 31 - 1;

const isText = (value: unknown): boolean => typeof value === "string";
const isTextOrLeftOut = (value: unknown): boolean => isText(value) || isLeftOut(value);

export const TEXT: Rule = ["a string", isText];
export const TEXTS: Rule = ["an array of strings", (value) => Array.isArray(value) && value.every(isText)];
export const VARIABLES: Rule = ["an object of strings", (value) => isRecord(value) && Object.values(value).every(isTextOrLeftOut)];
export const FLAG: Rule = ["true or false", (value) => typeof value === "boolean"];
export const MILLISECONDS: Rule = ["a number of milliseconds, 0 or more", (value) => typeof value === "number" && value >= 0];
export const CALLBACK: Rule = ["a function", (value) => typeof value === "function"];

/**
 * Gives the options without those that are undefined or null. Throws TypeError for the first that `rules` does not
 * have, or whose value does not suit. Never names a value: it could be a key.
 */
export function readOptions<Options extends object>(
  given: Options | null | undefined,
  rules: Readonly<Record<keyof Options, Rule>>,
  where: string,
): Options {
  if (isLeftOut(given)) return {} as Options;
  if (!isRecord(given)) throw new TypeError(`${where} takes an object of options.`);
  const known = new Map(Object.entries<Rule>(rules));
  for (const [name, value] of Object.entries(given)) {
    const rule = known.get(name);
    if (rule === undefined) {
      throw new TypeError(`${where} has no option ${JSON.stringify(name)}.${meant(name, [...known.keys()])}`);
    }
    const [must, suits] = rule;
    if (!isLeftOut(value) && !suits(value)) throw new TypeError(`${name} must be ${must}.`);
  }
  return Object.fromEntries(Object.entries(given).filter(([, value]) => !isLeftOut(value))) as Options;
}

function isLeftOut(value: unknown): value is null | undefined {
  return value === undefined || value === null;
}

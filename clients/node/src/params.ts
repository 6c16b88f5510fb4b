/** What is checked and tidied in this process, before a request is written. */

/**
 * Leaves out what is undefined or null, since the bridge refuses null. Params without members are left out as a whole.
 *
 * Throws TypeError for numbers that JSON cannot carry unharmed. Never names a value: it could be a key.
 */
export function tidyParams(params: object | undefined): Record<string, unknown> | undefined {
  if (params === undefined || params === null) return undefined;
  const known = Object.entries(params).filter(([, value]) => value !== undefined && value !== null);
  for (const [name, value] of known) {
    if (name === "taskId") checkTaskId(value);
    else if (typeof value === "bigint") throw new TypeError(`${name} must be a number, not a bigint.`);
    else if (typeof value === "number" && !Number.isFinite(value)) {
      throw new TypeError(`${name} must be a finite number.`);
    }
  }
  return known.length === 0 ? undefined : Object.fromEntries(known);
}

/** Above 2^53-1 a JavaScript number has lost digits, so it may name somebody else's task. */
function checkTaskId(value: unknown): void {
  if (typeof value !== "number") {
    throw new TypeError(`taskId must be a number, not a ${typeof value}.`);
  }
  if (!Number.isSafeInteger(value) || value < 1) {
    throw new TypeError("taskId must be a whole number from 1 to 2^53-1 (Number.MAX_SAFE_INTEGER).");
  }
}

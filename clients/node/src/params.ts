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

/** Reads a number that the vendor may have written as a string; undefined stays as it is. */
export function readNumber(name: string, value: unknown): number | undefined {
  if (value === undefined || value === null) return undefined;
  const read = typeof value === "string" && value.trim() !== "" ? Number(value) : value;
  if (typeof read !== "number" || !Number.isFinite(read) || read < 0) {
    throw new TypeError(`${name} must be a number from 0 on, or a string of one.`);
  }
  return read;
}

/** Reads a task id, or a string of its digits. */
export function readTaskId(value: unknown): number {
  const read = typeof value === "string" && /^[0-9]+$/.test(value) ? Number(value) : value;
  if (typeof read !== "number") throw new TypeError("taskId must be a number, or a string of its digits.");
  checkTaskId(read);
  return read;
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

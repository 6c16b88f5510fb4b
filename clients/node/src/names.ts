/** Refuses names that do not exist, with the one that was perhaps meant. */

/** Throws TypeError for the first name in `given` that `known` does not have. */
export function checkNames(given: object, known: Readonly<Record<string, true>>, where: string): void {
  for (const name of Object.keys(given)) {
    if (Object.hasOwn(known, name)) continue;
    throw new TypeError(`${where} has no option ${JSON.stringify(name)}.${meant(name, Object.keys(known))}`);
  }
}

/** " Did you mean …?": a name that is a few letters away or goes on where this one ends; nothing if none is near. */
export function meant(name: string, known: readonly string[]): string {
  const [asked, most] = [name.toLowerCase(), Math.max(1, Math.floor(name.length / 4))];
  const near = known
    .map((each) => ({ each, edits: countEdits(each.toLowerCase(), asked) }))
    .filter(({ each, edits }) => edits <= most || (asked.length > 2 && each.toLowerCase().startsWith(asked)))
    .sort((a, b) => a.edits - b.edits)[0];
  return near === undefined ? "" : ` Did you mean ${near.each}?`;
}

/** Levenshtein's distance. */
function countEdits(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const swap = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(swap, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

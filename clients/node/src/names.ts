/** Finds the name that was perhaps meant by one that does not exist. */

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

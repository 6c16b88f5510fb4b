import assert from "node:assert/strict";
import { test } from "node:test";

import { LineSplitter } from "#src/lines.js";

function split(chunks: Buffer[], maxBytes = 1_000): { lines: string[]; tooLong: number } {
  const lines: string[] = [];
  let tooLong = 0;
  const splitter = new LineSplitter({ maxBytes, onLine: (line) => lines.push(line), onTooLong: () => (tooLong += 1) });
  for (const chunk of chunks) splitter.push(chunk);
  splitter.end();
  return { lines, tooLong };
}

const TEXT = '{"a":"\u2028\u2029\u0085 é \u{1f642}"}\r\n\n{"b":1}\n{"c":"no end"}';
const LINES = ['{"a":"\u2028\u2029\u0085 é \u{1f642}"}', '{"b":1}', '{"c":"no end"}'];

test("splits on LF only, takes one CR away, and lets blank lines go", () => {
  assert.deepEqual(split([Buffer.from(TEXT)]).lines, LINES);
});

test("gives the same lines wherever the bytes are cut", () => {
  const bytes = Buffer.from(TEXT);
  for (let size = 1; size <= bytes.length; size += 1) {
    const chunks: Buffer[] = [];
    for (let start = 0; start < bytes.length; start += size) chunks.push(bytes.subarray(start, start + size));
    assert.deepEqual(split(chunks).lines, LINES, `chunks of ${size}`);
  }
});

test("drops a line that is too long, once, and goes on with the next", () => {
  const chunks = ["short\n", "x".repeat(600), "x".repeat(600), "x".repeat(600), "\nnext\n", "y".repeat(1_001), "\nlast"];
  assert.deepEqual(split(chunks.map((chunk) => Buffer.from(chunk))), { lines: ["short", "next", "last"], tooLong: 2 });
});

test("keeps a line of just the longest size", () => {
  assert.equal(split([Buffer.from(`${"x".repeat(1_000)}\n`)]).lines[0]?.length, 1_000);
});

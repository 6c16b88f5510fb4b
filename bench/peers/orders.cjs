// A closed loop for programs in Node; see bench/load.py, Caller.
"use strict";

const readline = require("node:readline");

/** Obeys orders from stdin; `send` reports one task and rejects if it was not taken. */
exports.serve = function serve(send, atEnd = () => {}) {
  let chain = Promise.resolve();
  const lines = readline.createInterface({ input: process.stdin });
  lines.on("line", (line) => {
    chain = chain.then(() => drive(send, JSON.parse(line))).then((told) => console.log(JSON.stringify(told)));
  });
  lines.on("close", () => chain.then(atEnd));
};

async function drive(send, { load, seconds, first }) {
  let next = first;
  let failed = 0;
  const latencies = [];
  const began = performance.now();
  const until = began + seconds * 1000;
  await Promise.all(
    Array.from({ length: load }, async () => {
      for (let at = performance.now(); at < until; at = performance.now()) {
        await send(next++).catch(() => failed++);
        latencies.push((performance.now() - at) / 1000);
      }
    }),
  );
  return { reports: latencies.length, seconds: (performance.now() - began) / 1000, latencies, failed };
}

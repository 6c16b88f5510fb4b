// A program that uses the bridge, in a process of its own; run as `node host.js MODE`.
import { Bridge } from "anticaptcha-report-bridge";

const mode = process.argv[2];
const bridge = await Bridge.start({ sandbox: true });
const { taskId } = await bridge.reportIncorrectRecaptcha({ taskId: 4_711 });
console.log(JSON.stringify({ pid: bridge.pid, taskId }));
// The idle bridge is left as it is: a program that has nothing else to do must end by itself.
if (mode === "stay") setInterval(() => undefined, 1_000);
if (mode === "wait") console.log((await bridge.reportIncorrectRecaptcha({ taskId: 9_000_000_000_001_001 })).outcome);
if (mode === "close") await bridge.close();

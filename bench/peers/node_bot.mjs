// A Node bot that reports through our client.
//
//   node_bot.mjs CLIENT_MODULE SETTINGS_JSON
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const { serve } = createRequire(import.meta.url)("./orders.cjs");
const [file, settings] = process.argv.slice(2);
const { Bridge } = await import(pathToFileURL(file).href);
const bridge = await Bridge.start(JSON.parse(settings));
serve((taskId) => bridge.reportIncorrectImageCaptcha({ taskId }), () => bridge.close());

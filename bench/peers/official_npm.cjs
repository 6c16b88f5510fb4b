// Calls the upstream with the official npm client as it is shipped.
//
//   official_npm.cjs URL KEY
//
// The client has its host written into its source, so that text alone is replaced while it is loaded.
// It keeps the task in a global, which one report at a time may use: the id is set right before each call.
"use strict";

const fs = require("node:fs");
const Module = require("node:module");
const { serve } = require("./orders.cjs");

const HOST = "https://api.anti-captcha.com/";
const [url, key, folder] = process.argv.slice(2);
const file = require.resolve("@antiadmin/anticaptchaofficial", { paths: [folder] });
const source = fs.readFileSync(file, "utf8");
if (!source.includes(HOST)) throw new Error("the official client has changed: look where its host is now");
const loaded = new Module(file, null);
loaded.filename = file;
loaded.paths = Module._nodeModulePaths(file);
loaded._compile(source.replaceAll(HOST, `${url}/`), file);
const client = loaded.exports;
client.shutUp();
client.setAPIKey(key);

serve((taskId) => {
  client.session.taskId = taskId;
  return client.reportIncorrectImageCaptcha();
});

/** Reports wrong and right captcha answers to Anti-Captcha.com through the report-bridge process. */

export { Bridge, type BridgeOptions, type RestartPolicy, type TaskNote } from "./bridge.js";
export type { CallOptions, ProtocolTrouble } from "./channel.js";
export type { CommandOptions } from "./command.js";
export {
  BridgeCallError,
  BridgeDownError,
  BridgeError,
  BridgeNotFoundError,
  CallAbortedError,
  CallTimeoutError,
  ReportError,
  UnansweredError,
  type Kind,
} from "./errors.js";
export * from "./generated.js";
export { newOfficialTask, type OfficialClient } from "./official.js";
export { Task, type TaskFacts } from "./task.js";

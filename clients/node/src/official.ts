/**
 * Lets reports of the official client, `@antiadmin/anticaptchaofficial`, go through the bridge, each with the id
 * of its own task. That client keeps the last task's id in one place for the whole program, so with two tasks
 * in flight it reports the wrong one. Calls that solve are passed on as they are; their answers are only read.
 */

import type { Bridge } from "./bridge.js";
import { isRecord, isReportMethod } from "./errors.js";
import type { ReportParams } from "./generated.js";
import { readNumber } from "./params.js";

/** What is needed of the official client: its state, and the one function by which it speaks to the vendor. */
export interface OfficialClient {
  session: object;
  JSONRequest(method: string, payload: object): Promise<unknown>;
}

/**
 * Gives the official client for one captcha: the same methods and settings, a session of its own. Solve with
 * it, then report with it. Nothing else changes, except that a report which fails rejects with an error of this
 * package. Each solved task is noted, as with `bridge.task`.
 */
export function newOfficialTask<Client extends OfficialClient>(official: Client, bridge: Bridge): Client {
  let created: Record<string, unknown> = {};
  let solved: ReportParams | null = null;

  const request = async (method: string, payload: Record<string, unknown> & ReportParams): Promise<unknown> => {
    if (isReportMethod(method)) {
      return bridge[method](solved?.taskId === payload.taskId ? { ...payload, ...solved } : payload);
    }
    const answer = await official.JSONRequest.call(own, method, payload);
    const { clientKey, task, taskId } = payload;
    if (method === "createTask" && isRecord(task)) created = task;
    if (method === "getTaskResult" && isRecord(answer) && answer["status"] === "ready") {
      const { languagePool, type: taskType } = created;
      try {
        const completedAt = readNumber("endTime", answer["endTime"]);
        solved = { taskId, clientKey, taskType, completedAt, languagePool } as unknown as ReportParams;
        bridge.noteTasks({ taskType, cost: answer["cost"], clientKey } as Parameters<Bridge["noteTasks"]>[0]);
      } catch {
        // What the vendor answered is odd; that is the solver's business, and no reason to fail here.
      }
    }
    return answer;
  };
  const own = Object.assign(Object.create(official) as Client, { session: { ...official.session }, JSONRequest: request });
  return own;
}

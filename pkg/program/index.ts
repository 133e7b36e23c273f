// SPDX-License-Identifier: Apache-2.0
/** What every long running program does around its work: help, settings, signals, exit codes; probes, webhook, leader. */
export { type Program, type ProgramContext, runProgram } from "./run-program.ts";
export {
  type LeaseTimes,
  openWebhookProgram,
  type WebhookProgram,
} from "./webhook-program.ts";

// SPDX-License-Identifier: Apache-2.0
/**
 * What long running programs do around their work: help, settings, signals and exit codes; those with a webhook also
 * probes, metrics, the webhook's server and the election of a leader.
 */
export { type Program, type ProgramContext, runProgram } from "./run-program.ts";
export {
  judgeWebhookFlags,
  placeWebhook,
  type WebhookFlags,
  type WebhookPlace,
  webhookSettings,
} from "./webhook-flags.ts";
export { type LeaseTimes, openWebhookProgram, type WebhookProgram } from "./webhook-program.ts";

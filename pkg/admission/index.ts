// SPDX-License-Identifier: Apache-2.0
/**
 * Judge what a Shoot asks of the extension: `decodeSpegelConfig` holds the rules for a `SpegelConfig`, which the
 * Extension controller shares; `judgeShoot` applies them to a write of a Shoot.
 */
export {
  type DecodedSpegelConfig,
  type DecodeOptions,
  decodeSpegelConfig,
  judgePortDefaults,
  portDefaultsOf,
} from "./decode.ts";
export { type JudgeShootOptions, judgeShoot } from "./judge-shoot.ts";
export { createShootWebhook, type ShootWebhook, type ShootWebhookDeps } from "./webhook.ts";

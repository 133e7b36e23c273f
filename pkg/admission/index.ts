// SPDX-License-Identifier: Apache-2.0
/** Judge a `SpegelConfig`: the rules that the Shoot's admission and the Extension controller share. */
export { type DecodedSpegelConfig, type DecodeOptions, decodeSpegelConfig } from "./decode.ts";

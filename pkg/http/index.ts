// SPDX-License-Identifier: Apache-2.0
/**
 * HTTP edges: listen addresses, byte ranges, servers.
 *
 * `openPlainServer` is the node daemon's: no framework, the handler may write to the socket itself.
 */
export {
  type AdmissionJudge,
  type AdmissionRequest,
  type AdmissionReview,
  type AdmissionVerdict,
  answerReview,
  MAX_REVIEW_BYTES,
  type ReviewOptions,
} from "./admission-review.ts";
export { formatHostPort, type ListenAddress, parseListenAddress } from "./listen-address.ts";
export { openPlainServer, type PlainServer, type PlainServerOptions } from "./plain-server.ts";
export {
  type ByteRange,
  formatContentRange,
  formatRange,
  parseContentRange,
  parseRange,
  type RangeRequest,
  resolveRange,
} from "./range.ts";

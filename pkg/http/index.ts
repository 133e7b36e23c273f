// SPDX-License-Identifier: Apache-2.0
/**
 * HTTP edges: listen addresses, byte ranges, servers.
 *
 * `openPlainServer` hands each request to a handler that writes to the socket itself, as the node daemon does.
 * `createHTTPServer` adds routes with whole bodies, for programs outside the nodes. Both serve certificates that may change.
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
export {
  type CertificateDirectoryOptions,
  type CertificateSource,
  createCertificateSource,
  type MutableCertificateSource,
  openCertificateDirectory,
  type ServerCertificate,
} from "./certificate-source.ts";
export { HTTPError, type HTTPErrorCode } from "./errors.ts";
export {
  formatHostPort,
  isHostPort,
  type ListenAddress,
  listenAddressProblem,
  parseListenAddress,
} from "./listen-address.ts";
export { openPlainServer, type PlainServer, type PlainServerOptions } from "./plain-server.ts";
export { createProbeServer, type ProbeServerDeps } from "./probe-server.ts";
export {
  type ByteRange,
  formatContentRange,
  formatRange,
  parseContentRange,
  parseRange,
  type RangeRequest,
  resolveRange,
} from "./range.ts";
export { openReviewServer, type ReviewServerDeps, type ReviewServerOptions } from "./review-server.ts";
export {
  type ClientCertificate,
  createHTTPServer,
  type HTTPAnswer,
  type HTTPRequest,
  type HTTPRoute,
  type HTTPServer,
  type HTTPServerDeps,
  type HTTPServerOptions,
} from "./server.ts";

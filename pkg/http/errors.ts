// SPDX-License-Identifier: Apache-2.0
import { CodedError } from "#errors";

export type HTTPErrorCode =
  /** A certificate, key or CA bundle is missing, unreadable, or they do not fit together; `message` names the file. */
  "HTTP_CERTIFICATE_INVALID";

export class HTTPError extends CodedError<HTTPErrorCode> {
  override readonly name = "HTTPError";
}

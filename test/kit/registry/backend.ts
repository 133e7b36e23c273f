// SPDX-License-Identifier: Apache-2.0

/** A registry that answers plain HTTP on loopback, without credentials; the front stands before it. */
export interface Backend extends AsyncDisposable {
  /** `http://127.0.0.1:port` */
  readonly origin: string;
  /** For reports: `docker-registry` or `node`. */
  readonly name: string;
}

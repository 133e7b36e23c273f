// SPDX-License-Identifier: Apache-2.0
import { authorize, type Credentials } from "./authorize.ts";
import type { RegistryHost } from "./load-hosts.ts";
import type { Answer, Transport } from "./send-request.ts";

/** What is asked for, the same for every host. */
export interface Question {
  readonly method: "GET" | "HEAD";
  readonly registry: string;
  readonly repository: string;
  /** `manifests/<tag or digest>` or `blobs/<digest>`. */
  readonly object: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
}

export interface Asking {
  readonly transport: Transport;
  /** The node's own trust, PEM texts. */
  readonly authorities: readonly string[];
  /** For the registry itself, never for mirrors. */
  readonly credentials?: Credentials;
}

// containerd keeps the responses of one request and gives up when it has more than five.
const MAX_REPEATS = 5;
const USER_AGENT = "containerd/pull-client";

/**
 * Asks one host, repeating where containerd does: 401 with credentials, 405 to HEAD of a manifest by GET, 408
 * and 429 up to five times without a pause, 500, 503 and 504 once and only on the last host (2.x; 1.6 does not).
 *
 * Rejects when there is no answer at all.
 */
export async function askHost(
  host: RegistryHost,
  question: Question,
  asking: Asking & { readonly isLast: boolean },
): Promise<Answer> {
  let method = question.method;
  let authorization: string | undefined;
  let previousStatus = 0;
  for (let repeats = 0; ; repeats++) {
    const answer = await asking.transport.send({
      method,
      url: urlOf(host, question),
      headers: {
        "user-agent": USER_AGENT,
        ...host.headers,
        ...question.headers,
        ...(authorization === undefined ? {} : { authorization }),
      },
      authorities: [...asking.authorities, ...host.authorities],
      signal: question.signal,
    });
    if (repeats >= MAX_REPEATS) return answer;
    const repeated = answer.status === previousStatus;
    previousStatus = answer.status;
    if (answer.status === 401) {
      // A token that was refused will be refused again.
      if (authorization !== undefined) return answer;
      authorization = await authorizationFor(host, answer, { ...asking, signal: question.signal });
      if (authorization === undefined) return answer;
    } else if (answer.status === 405 && method === "HEAD" && question.object.startsWith("manifests/")) {
      method = "GET";
    } else if (!isRepeatable(answer.status, { isLast: asking.isLast, repeated })) {
      return answer;
    }
    answer.body.destroy();
  }
}

function isRepeatable(
  status: number,
  context: { readonly isLast: boolean; readonly repeated: boolean },
): boolean {
  if (status === 408 || status === 429) return true;
  return (status === 500 || status === 503 || status === 504) && context.isLast && !context.repeated;
}

async function authorizationFor(
  host: RegistryHost,
  answer: Answer,
  asking: Asking & { readonly signal: AbortSignal },
): Promise<string | undefined> {
  const { credentials, transport, signal } = asking;
  if (credentials === undefined || host.mirror) return undefined;
  const authorities = [...asking.authorities, ...host.authorities];
  return authorize(answer.headers["www-authenticate"], { credentials, transport, authorities, signal });
}

function urlOf(host: RegistryHost, question: Question): URL {
  const url = new URL(`${host.path}/${question.repository}/${question.object}`, host.origin);
  if (host.mirror) url.searchParams.set("ns", question.registry);
  return url;
}

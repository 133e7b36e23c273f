// SPDX-License-Identifier: Apache-2.0
import { createTaskGroup, sleep } from "#async";
import { errorMessage } from "#errors";
import type { Logger } from "#log";
import { type AdmissionReview, MAX_REVIEW_BYTES } from "./admission-review.ts";
import {
  createCertificateSource,
  type MutableCertificateSource,
  type ServerCertificate,
} from "./certificate-source.ts";
import { createHTTPServer, type HTTPServer } from "./server.ts";

export interface ReviewServerDeps {
  readonly webhook: {
    /** Answers the body of one request; never rejects. The signal comes into being when it is read. */
    review(body: Uint8Array, options: { readonly signal: AbortSignal }): Promise<AdmissionReview>;
  };
  readonly certificates: {
    /** What to serve now. */
    load(options: { readonly signal: AbortSignal }): Promise<ServerCertificate>;
  };
  readonly logger: Logger;
  /** Told why there is no certificate yet, each time that it could not be loaded at the start. */
  readonly onWaiting?: (reason: string) => void;
  /** Called for every request that was answered, with the time since it was there to its last byte. */
  readonly onAnswered?: (durationMs: number) => void;
}

export interface ReviewServerOptions {
  /** `host:port` or `:port`. */
  readonly address: string;
  /** Of the one route. */
  readonly path: string;
  /** Between looks for a newer certificate. */
  readonly reloadIntervalMs: number;
  /** Once it aborts, every answer closes its connection, until the server is disposed. */
  readonly signal: AbortSignal;
}

/** Without a certificate there is nothing to serve: what keeps it away is looked at again after this time, or sooner. */
const FIRST_LOAD_RETRY_MS = 5000;
/** Below the ten seconds after which the API server gives up, so that it gets an answer. */
const REVIEW_TIMEOUT_MS = 8000;

/**
 * Serves an admission webhook over TLS. It exists only once a certificate is loaded, which may take as long as the
 * Secrets cannot be read; later certificates replace it while it runs.
 *
 * @throws the reason of the signal, or the system error of listen
 */
export async function openReviewServer(
  deps: ReviewServerDeps,
  options: ReviewServerOptions,
): Promise<HTTPServer> {
  const { webhook, certificates, logger, onAnswered } = deps;
  await using parts = new AsyncDisposableStack();
  const source = await loadFirst(deps, options);
  const server = parts.use(
    await createHTTPServer(
      { logger, certificates: source, ...(onAnswered && { onAnswered }) },
      {
        address: options.address,
        maxBodyBytes: MAX_REVIEW_BYTES,
        draining: options.signal,
        routes: [
          {
            method: "POST",
            path: options.path,
            async handle({ body, signal }) {
              const review = await webhook.review(body, lateLimit(signal, REVIEW_TIMEOUT_MS));
              return { status: 200, contentType: "application/json", body: JSON.stringify(review) };
            },
          },
        ],
      },
    ),
  );
  const tasks = parts.use(createTaskGroup({ signal: options.signal }));
  tasks.run("certificate reload", async (signal) => {
    for (;;) {
      await sleep(options.reloadIntervalMs, { signal });
      try {
        const next = await certificates.load({ signal });
        if (next.certificatePem === source.current.certificatePem) continue;
        source.replace(next);
        logger.info("webhook certificate replaced");
      } catch (error) {
        signal.throwIfAborted();
        logger.warn("webhook certificate not reloaded, the last one stays", { err: error });
      }
    }
  });
  const running = parts.move();
  return { port: server.port, address: server.address, [Symbol.asyncDispose]: () => running.disposeAsync() };
}

/**
 * A signal with a time limit that exists once somebody reads it. A review that is answered from caches reads none, and
 * making one costs a third of such a review.
 */
function lateLimit(signal: AbortSignal, timeoutMs: number): { readonly signal: AbortSignal } {
  let limited: AbortSignal | undefined;
  return {
    get signal() {
      limited ??= AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
      return limited;
    },
  };
}

/** Tries until it succeeds: a program that is not ready and says why is better than one that ends again and again. */
async function loadFirst(
  { certificates, logger, onWaiting }: ReviewServerDeps,
  { reloadIntervalMs, signal }: ReviewServerOptions,
): Promise<MutableCertificateSource> {
  for (;;) {
    try {
      return createCertificateSource(await certificates.load({ signal }));
    } catch (error) {
      signal.throwIfAborted();
      onWaiting?.(errorMessage(error));
      logger.error("webhook has no certificate yet, will try again", { err: error });
      await sleep(Math.min(reloadIntervalMs, FIRST_LOAD_RETRY_MS), { signal });
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
import fs from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { CleanupSettings } from "#api/config";
import { restoreConfiguration } from "#hosts";
import { openPlainServer } from "#http";
import type { Logger } from "#log";

/** How long answers under way may take once the signal has come. */
const DRAIN_TIMEOUT_MS = 1_000;

/**
 * `spegel cleanup`: puts containerd's configuration back, then says so on `/readyz` until it is stopped.
 *
 * @param context.ready told the address once the configuration is restored
 * @throws HostsError; the system error of the listen
 */
export async function runCleanup(
  settings: CleanupSettings,
  context: { readonly log: Logger; readonly signal: AbortSignal; readonly ready?: (address: string) => void },
): Promise<void> {
  const { log, signal } = context;
  await restoreConfiguration({ fs, log }, settings.containerdRegistryConfigPath, { signal });
  await using server = await openPlainServer(answer, {
    address: settings.addr,
    drainTimeoutMs: DRAIN_TIMEOUT_MS,
  });
  log.info("The configuration is restored.", { address: server.address });
  context.ready?.(server.address);
  if (signal.aborted) return;
  await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
}

/** `GET` or `HEAD /readyz` is 200, another method there 405, all else 404. */
async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const isReadiness = request.url?.split("?")[0] === "/readyz";
  const isRead = request.method === "GET" || request.method === "HEAD";
  const status = !isReadiness ? 404 : isRead ? 200 : 405;
  response.writeHead(status, { "content-length": 0, ...(status === 405 ? { allow: "GET, HEAD" } : {}) });
  response.end();
  await Promise.resolve();
}

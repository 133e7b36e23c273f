// SPDX-License-Identifier: Apache-2.0
import { sleep } from "#async";
import { type KubeClient, KubeError, type Lease } from "#kube";

/** One Lease behind a network that is slow, and that loses requests and answers. */
export interface LeaseServer {
  stored: Lease | undefined;
  isAway: boolean;
  writes: number;
  conflicts: number;
  /** `isCutOff` is asked at each request. */
  client(isCutOff?: () => boolean): KubeClient;
}

export function createLeaseServer(
  random: () => number,
  network: { readonly maxDelayMs: number; readonly lossRate: number },
): LeaseServer {
  let version = 0;
  const refused = (code: "KUBE_CONFLICT" | "KUBE_ALREADY_EXISTS" | "KUBE_NOT_FOUND"): KubeError =>
    new KubeError({ code, message: code });
  async function cross(signal: AbortSignal, isCutOff: () => boolean): Promise<void> {
    // One way in ten is much slower than the others.
    await sleep(random() * network.maxDelayMs * (random() < 0.1 ? 8 : 1), { signal });
    if (server.isAway || isCutOff() || random() < network.lossRate)
      throw new KubeError({ code: "KUBE_UNAVAILABLE", message: "the connection broke" });
  }
  function write(lease: Lease): Lease {
    server.writes++;
    server.stored = { ...lease, metadata: { ...lease.metadata, resourceVersion: String(++version) } };
    return server.stored;
  }
  const server: LeaseServer = {
    stored: undefined,
    isAway: false,
    writes: 0,
    conflicts: 0,
    client(isCutOff = () => false) {
      async function call<T>(signal: AbortSignal, act: () => T): Promise<T> {
        await cross(signal, isCutOff);
        const answer = act();
        await cross(signal, isCutOff);
        return answer;
      }
      return {
        find: (_: unknown, __: unknown, { signal }: { signal: AbortSignal }) =>
          call(signal, () => server.stored),
        get: (_: unknown, __: unknown, { signal }: { signal: AbortSignal }) =>
          call(signal, () => {
            if (server.stored === undefined) throw refused("KUBE_NOT_FOUND");
            return server.stored;
          }),
        create: (_: unknown, lease: Lease, { signal }: { signal: AbortSignal }) =>
          call(signal, () => {
            if (server.stored === undefined) return write(lease);
            server.conflicts++;
            throw refused("KUBE_ALREADY_EXISTS");
          }),
        replace: (_: unknown, lease: Lease, { signal }: { signal: AbortSignal }) =>
          call(signal, () => {
            const isCurrent = server.stored?.metadata.resourceVersion === lease.metadata.resourceVersion;
            if (isCurrent) return write(lease);
            server.conflicts++;
            throw refused("KUBE_CONFLICT");
          }),
        [Symbol.asyncDispose]: async () => {},
      } as unknown as KubeClient;
    },
  };
  return server;
}

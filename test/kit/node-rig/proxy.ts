// SPDX-License-Identifier: Apache-2.0
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { startProcess } from "../process/index.ts";
import { inNamespace, type Namespace } from "./network.ts";
import { REGISTRY_PORT } from "./spegel-node.ts";

const execute = promisify(execFile);
const PROGRAM = new URL("./proxy-program.ts", import.meta.url).pathname;

/** What a mirror that is not this project's might do to large blobs. */
export type Lie =
  | "none"
  /** One wrong bit. */
  | "flip"
  /** A Content-Length that is too small, and as many bytes. */
  | "few"
  /** A Content-Length that is too large, and as many bytes. */
  | "many";

export interface ProxiedRequest {
  readonly method: string;
  readonly url: string;
  readonly headers: Readonly<Record<string, string | undefined>>;
}

/** Stands between a node's mirror and whoever asks it. */
export interface Proxy extends AsyncDisposable {
  readonly port: number;
  requests(): readonly ProxiedRequest[];
}

/**
 * Starts a proxy on a node, before its mirror.
 *
 * @param options.intercept sends what other nodes ask the mirror to the proxy, until it is disposed
 */
export async function startProxy(
  namespace: Namespace,
  options: {
    readonly port: number;
    readonly lie?: Lie;
    readonly intercept: boolean;
    readonly signal: AbortSignal;
  },
): Promise<Proxy> {
  const { port, signal, lie = "none" } = options;
  await using starting = new AsyncDisposableStack();
  const [command, ...args] = [
    ...inNamespace(namespace),
    process.execPath,
    "--disable-warning=ExperimentalWarning",
    PROGRAM,
    String(port),
    String(REGISTRY_PORT),
    lie,
  ];
  const running = starting.use(
    await startProcess({
      name: `proxy on ${namespace.address}`,
      command,
      args,
      ready: { kind: "line", pattern: /^listening$/ },
      readyTimeoutMs: 30_000,
      signal,
    }),
  );
  if (options.intercept) {
    const nft = (rules: string): Promise<unknown> =>
      execute("ip", ["netns", "exec", namespace.name, "nft", rules]);
    await nft(
      `table ip intercept { chain input { type nat hook prerouting priority -100; iifname eth0 tcp dport ${REGISTRY_PORT} redirect to :${port}; }; }`,
    );
    starting.defer(async () => {
      await nft("delete table ip intercept");
    });
  }
  const parts = starting.move();
  return {
    port,
    requests: () =>
      running.output.lines
        .filter((line) => line.text.startsWith("{"))
        .map((line) => JSON.parse(line.text) as ProxiedRequest),
    [Symbol.asyncDispose]: () => parts.disposeAsync(),
  };
}

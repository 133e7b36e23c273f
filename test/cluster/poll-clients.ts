// SPDX-License-Identifier: Apache-2.0
import { request } from "node:https";
import { createTaskGroup, sleep } from "#async";

/** What a node shows and whom it trusts, as it lies in its certificate folder. */
export interface NodeCertificates {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/** Nodes that ask for the list of nodes again and again, each time on a new connection. */
export interface PollingNodes extends AsyncDisposable {
  readonly answeredCount: number;
  /** One line for each request without a proper answer. */
  readonly failures: readonly string[];
  /** Gives each node, one after the other, what its next connections use. */
  replaceCertificates(certificates: NodeCertificates): Promise<void>;
}

const PAUSE_MS = 400;
/** Nodes apply a new configuration one after the other. */
const SPREAD_MS = 15;

export function pollFromNodes(options: {
  readonly count: number;
  readonly address: string;
  /** Name in the bootstrap URL, for SNI and verification. */
  readonly host: string;
  readonly certificates: NodeCertificates;
  readonly signal: AbortSignal;
}): PollingNodes {
  const nodes = Array.from({ length: options.count }, () => options.certificates);
  const failures: string[] = [];
  let answeredCount = 0;
  let phase = "";
  const tasks = createTaskGroup({ signal: options.signal });
  for (const index of nodes.keys()) {
    tasks.run("node", async (signal) => {
      await sleep((PAUSE_MS * index) / nodes.length, { signal });
      while (!signal.aborted) {
        const certificates = nodes[index] as NodeCertificates;
        try {
          await askForNodes(options, certificates);
          answeredCount++;
        } catch (error) {
          if (!signal.aborted) failures.push(`node ${index}${phase}: ${(error as Error).message}`);
        }
        await sleep(PAUSE_MS, { signal });
      }
    });
  }
  return {
    failures,
    get answeredCount() {
      return answeredCount;
    },
    async replaceCertificates(certificates) {
      for (const index of nodes.keys()) {
        nodes[index] = certificates;
        phase = `, ${index + 1} nodes replaced`;
        await sleep(SPREAD_MS, options);
      }
    },
    [Symbol.asyncDispose]: () => tasks[Symbol.asyncDispose](),
  };
}

/** One request over a connection of its own. Rejects for everything but a list. */
export function askForNodes(
  target: { readonly address: string; readonly host: string },
  certificates: Partial<NodeCertificates>,
): Promise<{ readonly ID: string; readonly Addrs: readonly string[] }[]> {
  const [host, port] = target.address.split(":");
  return new Promise((resolve, reject) => {
    const sent = request(
      {
        host,
        port,
        path: "/bootstrap-nodes",
        servername: target.host,
        ...certificates,
        agent: false,
        timeout: 10_000,
      },
      (response) => {
        let body = "";
        response.setEncoding("utf8").on("data", (text: string) => (body += text));
        response.on("error", reject);
        response.on("end", () => {
          if (response.statusCode === 200) resolve(JSON.parse(body));
          else reject(new Error(`${response.statusCode}: ${body}`));
        });
      },
    );
    sent.on("timeout", () => sent.destroy(new Error("no answer for 10 s")));
    sent.on("error", reject);
    sent.end();
  });
}

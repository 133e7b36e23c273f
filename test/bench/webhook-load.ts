// SPDX-License-Identifier: Apache-2.0
/** The requests that the bench of the webhook sends, and the clients that send them. */
import { connect, type TLSSocket } from "node:tls";
import type { OperatingSystemConfig } from "#api/gardener";
import { sleep } from "#async";
import { addSpegel } from "#osc";

export const PATH = "/webhooks/registry-spegel";
export const NAMESPACE = "shoot--foo--bar";
/** Of the Extension, once it is reconciled. */
export const STATUS = {
  apiVersion: "spegel.extensions.gardener.cloud/v1alpha1",
  kind: "SpegelStatus",
  bootstrapURL: "https://spegel-foo--bar.ingress.local.seed.example.org/bootstrap-nodes",
  caBundleSecretName: "ca-extension-registry-spegel-bundle-1a2b3c4d",
  clientSecretName: "registry-spegel-client-1a2b3c4d-5e6f7",
  registryPort: 5000,
  routerPort: 5001,
  metricsPort: 9090,
  image: "registry.example.org/spegel@sha256:bb",
} as const;
const NODE = {
  ...STATUS,
  capabilities: ["pull", "resolve"],
  memoryHigh: "80M",
  memoryMax: "100M",
  watchdogSeconds: 5,
} as const;

/** The files and units that the webhook adds to an object without any, as JSON. */
export function additionsTo({ spec, ...rest }: OperatingSystemConfig): string {
  const { files, units } = addSpegel({ ...rest, spec }, NODE).spec;
  return JSON.stringify({
    files: files?.slice(spec.files?.length ?? 0),
    units: units?.slice(spec.units?.length ?? 0),
  });
}

/** The node configuration of a pool, filled up with inline files as Gardener's: base64, some kilobytes each. */
export function oscOf(original: OperatingSystemConfig, sizeBytes: number): OperatingSystemConfig {
  const files = [...(original.spec.files ?? [])];
  for (let index = 0; JSON.stringify(files).length < sizeBytes; index++) {
    const data = Buffer.alloc(1500 + ((index * 977) % 4000), `line ${index} of a script\n`).toString(
      "base64",
    );
    const content = { inline: { encoding: "b64", data } } as const;
    files.push({ path: `/var/lib/component-${index}/config`, permissions: 420, content });
  }
  return { ...original, spec: { ...original.spec, files } };
}

/** An UPDATE as gardenlet makes it: the object without the additions, the old object with them. */
export function requestOf(osc: OperatingSystemConfig): Buffer {
  const old = addSpegel(osc, NODE);
  const body = JSON.stringify({
    kind: "AdmissionReview",
    apiVersion: "admission.k8s.io/v1",
    request: {
      uid: "705ab4f5-6393-11e8-b7cc-42010a800002",
      kind: { group: "extensions.gardener.cloud", version: "v1alpha1", kind: "OperatingSystemConfig" },
      resource: {
        group: "extensions.gardener.cloud",
        version: "v1alpha1",
        resource: "operatingsystemconfigs",
      },
      name: osc.metadata.name,
      namespace: NAMESPACE,
      operation: "UPDATE",
      userInfo: { username: "gardenlet", groups: ["system:authenticated"] },
      object: osc,
      oldObject: old,
      dryRun: false,
      options: { kind: "UpdateOptions", apiVersion: "meta.k8s.io/v1" },
    },
  });
  const head = `POST ${PATH}?timeout=10s HTTP/1.1\r\nHost: webhook\r\nContent-Type: application/json\r\n`;
  return Buffer.from(`${head}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
}

export interface Client extends Disposable {
  /** Sends one request; the bytes of its answer. */
  ask(request: Buffer): Promise<Buffer>;
}

/** As little as makes a client: on a small machine it runs beside what it measures. */
export async function openClient(address: string): Promise<Client> {
  const [host, port] = address.split(":");
  const socket: TLSSocket = connect({ host: host as string, port: Number(port), rejectUnauthorized: false });
  socket.setNoDelay(true);
  await new Promise((resolve, reject) => socket.once("secureConnect", resolve).once("error", reject));
  let answered: ((answer: Buffer) => void) | undefined;
  let failed: ((error: Error) => void) | undefined;
  let received: Buffer[] = [];
  let missing = -1;
  socket.on("error", (error) => failed?.(error));
  socket.on("close", () => failed?.(new Error("the webhook closed the connection")));
  socket.on("data", (chunk: Buffer) => {
    received.push(chunk);
    if (missing < 0) {
      const head = Buffer.concat(received);
      const end = head.indexOf("\r\n\r\n");
      if (end < 0) return;
      if (!head.subarray(0, 12).equals(Buffer.from("HTTP/1.1 200")))
        return failed?.(new Error(head.toString()));
      const length = /content-length: (\d+)/i.exec(head.subarray(0, end).toString("latin1"))?.[1];
      missing = length === undefined ? Number.POSITIVE_INFINITY : end + 4 + Number(length) - head.length;
    } else {
      missing -= chunk.length;
    }
    // Go sends longer answers in chunks.
    const isEnded =
      missing <= 0 ||
      (missing === Number.POSITIVE_INFINITY && chunk.toString("latin1", chunk.length - 5) === "0\r\n\r\n");
    if (!isEnded) return;
    const answer = Buffer.concat(received);
    received = [];
    missing = -1;
    answered?.(answer);
  });
  return {
    ask(request) {
      return new Promise((resolve, reject) => {
        [answered, failed] = [resolve, reject];
        socket.write(request);
      });
    },
    [Symbol.dispose]() {
      failed = undefined;
      socket.destroy();
    },
  };
}

/** Milliseconds of every answer within the time, in ascending order. */
export async function measure(
  clients: readonly Client[],
  request: Buffer,
  options: { readonly pauseMs: number; readonly ms: number; readonly signal: AbortSignal },
): Promise<number[]> {
  const { pauseMs, ms } = options;
  const times: number[] = [];
  const untilMs = performance.now() + ms;
  await Promise.all(
    clients.map(async (client, index) => {
      if (pauseMs > 0) await sleep((pauseMs * index) / clients.length, options);
      for (let count = 0; performance.now() < untilMs; count++) {
        const startedMs = performance.now();
        await client.ask(request);
        times.push(performance.now() - startedMs);
        // Spread, and the same in every run.
        if (pauseMs > 0) await sleep(pauseMs * (0.5 + ((index * 37 + count * 61) % 100) / 100), options);
      }
    }),
  );
  return times.sort((a, b) => a - b);
}

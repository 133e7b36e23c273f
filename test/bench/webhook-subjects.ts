// SPDX-License-Identifier: Apache-2.0
/** What the bench of the webhook measures: ours as built, one in Go, and the least that Node can do. */
import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import type { OperatingSystemConfig } from "#api/gardener";
import { type ApiObjectInit, readManifests, startApiServer } from "#kit/api-server";
import { issueAuthority, issueLeaf } from "#pki";
import { type RunningProcess, startProcess } from "../kit/process/index.ts";
import { additionsTo, NAMESPACE, STATUS } from "./webhook-load.ts";

export interface Subject extends AsyncDisposable {
  readonly name: string;
  /** `host:port`. */
  readonly address: string;
  readonly pid: number;
  /** Requests that it sent to the API server so far. */
  apiRequests(): number;
}

interface SubjectOptions {
  /** For files of the run. */
  readonly directory: string;
  readonly signal: AbortSignal;
}

const OWN = "extension-registry-spegel";
const TOKEN = "token-of-the-extension";
const RUNNING = /"msg":"running"/;
const ADDRESS = /^127\.0\.0\.1:\d+$/;

export async function example(name: string): Promise<ApiObjectInit> {
  return (await readManifests(new URL(`../../example/${name}.yaml`, import.meta.url)))[0] as ApiObjectInit;
}

/** The extension with its controllers off and its caches filled. */
export async function startOurs(original: OperatingSystemConfig, options: SubjectOptions): Promise<Subject> {
  await using parts = new AsyncDisposableStack();
  const seed = parts.use(
    await startApiServer({
      users: [
        { name: "extension", token: TOKEN, rules: [{ apiGroups: ["*"], resources: ["*"], verbs: ["*"] }] },
      ],
    }),
  );
  const timestamp = original.metadata.annotations?.["gardener.cloud/timestamp"] as string;
  seed.seed([
    { apiVersion: "v1", kind: "Namespace", metadata: { name: OWN } },
    await example("namespace"),
    await example("cluster"),
    {
      apiVersion: "extensions.gardener.cloud/v1alpha1",
      kind: "Extension",
      metadata: {
        name: "registry-spegel",
        namespace: NAMESPACE,
        generation: 1,
        annotations: { "gardener.cloud/timestamp": timestamp },
      },
      spec: { type: "registry-spegel" },
      status: {
        observedGeneration: 1,
        providerStatus: STATUS,
        lastOperation: {
          type: "Reconcile",
          state: "Succeeded",
          progress: 100,
          description: "",
          lastUpdateTime: timestamp,
        },
      },
    } as unknown as ApiObjectInit,
  ]);
  const kubeconfig = join(options.directory, "kubeconfig");
  await writeFile(kubeconfig, seed.kubeconfig({ token: TOKEN }));
  const program = parts.use(
    await startPinned(
      "extension",
      [
        "dist/gardener-extension-registry-spegel",
        `--kubeconfig=${kubeconfig}`,
        `--webhook-config-namespace=${OWN}`,
        "--webhook-config-server-host=127.0.0.1",
        "--webhook-config-server-port=0",
        "--health-bind-address=127.0.0.1:0",
        "--metrics-bind-address=127.0.0.1:0",
        "--shutdown-delay-seconds=0",
        "--leader-election=false",
        "--disable-controllers=extension,heartbeat",
        "--bootstrapper-image=registry.example.org/registry-spegel-bootstrapper@sha256:aa",
        "--node-image=registry.example.org/spegel@sha256:bb",
      ],
      RUNNING,
      options,
    ),
  );
  const line = program.output.lines.find(({ text }) => RUNNING.test(text));
  const { webhook } = JSON.parse(line?.text ?? "{}") as { readonly webhook: string };
  return subjectOf(
    "ours",
    program,
    webhook,
    parts.move(),
    () => seed.requests.filter(({ verb }) => verb === "get").length,
  );
}

/** Like an extension written with Gardener's library; see `go-webhook/main.go`. */
export async function startGo(original: OperatingSystemConfig, options: SubjectOptions): Promise<Subject> {
  const executable = join(options.directory, "go-webhook");
  const additions = join(options.directory, "additions.json");
  await writeFile(additions, additionsTo(original));
  await promisify(execFile)("go", ["build", "-trimpath", "-o", executable, "."], {
    cwd: new URL("go-webhook", import.meta.url),
    env: { ...process.env, CGO_ENABLED: "0" },
    signal: options.signal,
  });
  const { certificate, key } = await writeCertificate(options.directory);
  const command = [executable, `-cert=${certificate}`, `-key=${key}`, `-additions=${additions}`];
  return await startSubject("Go, controller-runtime", command, options);
}

/** Reads and answers, and does nothing in between. */
export async function startBare(answerBytes: number, options: SubjectOptions): Promise<Subject> {
  const { certificate, key } = await writeCertificate(options.directory);
  const command = [process.execPath, "test/bench/webhook-bare.ts", certificate, key, String(answerBytes)];
  return await startSubject("Node, no work", command, options);
}

async function startSubject(
  name: string,
  command: readonly string[],
  options: SubjectOptions,
): Promise<Subject> {
  await using parts = new AsyncDisposableStack();
  const program = parts.use(await startPinned(name, command, ADDRESS, options));
  const address = await program.waitForLine(ADDRESS, { timeoutMs: 10_000, signal: options.signal });
  return subjectOf(name, program, address, parts.move(), () => 0);
}

/** One processor is its own, the other is for the clients. */
function startPinned(
  name: string,
  command: readonly string[],
  pattern: RegExp,
  { signal }: SubjectOptions,
): Promise<RunningProcess> {
  return startProcess({
    name,
    command: "taskset",
    args: ["--cpu-list", "0", ...command],
    ready: { kind: "line", pattern },
    readyTimeoutMs: 60_000,
    signal,
  });
}

function subjectOf(
  name: string,
  { pid }: RunningProcess,
  address: string,
  parts: AsyncDisposableStack,
  apiRequests: () => number,
): Subject {
  return { name, pid, address, apiRequests, [Symbol.asyncDispose]: () => parts.disposeAsync() };
}

async function writeCertificate(
  directory: string,
): Promise<{ readonly certificate: string; readonly key: string }> {
  const [certificate, key] = [join(directory, "tls.crt"), join(directory, "tls.key")];
  const validity = { validityMs: 3_600_000, nowMs: Date.now() };
  const authority = await issueAuthority({ commonName: "bench", ...validity });
  const leaf = await issueLeaf(authority, {
    usage: "server",
    commonName: "webhook",
    ipAddresses: ["127.0.0.1"],
    ...validity,
  });
  await writeFile(certificate, leaf.certificatePem);
  await writeFile(key, leaf.privateKeyPem);
  return { certificate, key };
}

// SPDX-License-Identifier: Apache-2.0
/**
 * A stand-in for the webhooks of the registry-cache extension, for a cache and for a mirror that a Shoot names. It
 * replaces the whole entries of its upstreams or appends them, and neither reads nor keeps the hosts of others.
 */
import type { OperatingSystemConfig, RegistryConfig } from "#api/gardener";
import {
  type AdmissionJudge,
  type AdmissionVerdict,
  answerReview,
  createCertificateSource,
  createHTTPServer,
} from "#http";
import { silentLogger } from "#log";
import { createKeyPair, issueAuthority, issueLeaf } from "#pki";
import type { RawClient } from "../../kit/kube-parts/index.ts";

export const CACHED_UPSTREAM = "ghcr.io";
export const CACHE_HOST = "https://10.4.246.205:5000";
export const CACHE_LABEL = "extensions.gardener.cloud/registry-cache";

export const MIRRORED_UPSTREAM = "docker.io";
export const MIRROR_HOST = "https://mirror.example.org/v2/docker";

const ENTRIES: readonly RegistryConfig[] = [
  {
    upstream: CACHED_UPSTREAM,
    server: `https://${CACHED_UPSTREAM}`,
    hosts: [
      {
        url: CACHE_HOST,
        capabilities: ["pull", "resolve"],
        caCerts: ["/etc/containerd/certs.d/ca-bundle.pem"],
      },
    ],
    readinessProbe: true,
  },
  {
    upstream: MIRRORED_UPSTREAM,
    server: "https://registry-1.docker.io",
    hosts: [{ url: MIRROR_HOST, capabilities: ["pull"], overridePath: true }],
  },
];
const JUDGE: AdmissionJudge = { readsOldObject: false, judge: async ({ object }) => judge(object) };
const PATH = "/webhooks/registry-cache";
const HOUR_MS = 3_600_000;

/** Serves it and registers it under a name, which decides whether it is called before or after ours. */
export async function startRegistryCache(
  seed: RawClient,
  options: { readonly configurationName: string; readonly reinvocationPolicy: "Never" | "IfNeeded" },
): Promise<AsyncDisposable> {
  const parts = new AsyncDisposableStack();
  const request = { nowMs: Date.now(), validityMs: HOUR_MS, key: await createKeyPair({ bits: 2048 }) };
  const authority = await issueAuthority({ ...request, commonName: "registry-cache" });
  const leaf = await issueLeaf(authority, {
    ...request,
    usage: "server",
    commonName: "registry-cache",
    ipAddresses: ["127.0.0.1"],
    key: await createKeyPair({ bits: 2048 }),
  });
  const certificates = createCertificateSource({
    certificatePem: leaf.certificatePem,
    keyPem: leaf.privateKeyPem,
  });
  const server = parts.use(
    await createHTTPServer(
      { logger: silentLogger, certificates },
      {
        address: "127.0.0.1:0",
        maxBodyBytes: 4_000_000,
        routes: [
          {
            method: "POST",
            path: PATH,
            async handle({ body, signal }) {
              const review = await answerReview(body, JUDGE, { signal });
              return { status: 200, contentType: "application/json", body: JSON.stringify(review) };
            },
          },
        ],
      },
    ),
  );
  const configuration = {
    apiVersion: "admissionregistration.k8s.io/v1",
    kind: "MutatingWebhookConfiguration",
    metadata: { name: options.configurationName },
    webhooks: [
      {
        name: "registry-cache.registry-cache.extensions.gardener.cloud",
        admissionReviewVersions: ["v1"],
        clientConfig: {
          url: `https://${server.address}${PATH}`,
          caBundle: Buffer.from(authority.certificatePem).toString("base64"),
        },
        rules: [
          {
            operations: ["CREATE", "UPDATE"],
            apiGroups: ["extensions.gardener.cloud"],
            apiVersions: ["v1alpha1"],
            resources: ["operatingsystemconfigs"],
          },
        ],
        namespaceSelector: { matchLabels: { [CACHE_LABEL]: "true" } },
        reinvocationPolicy: options.reinvocationPolicy,
        sideEffects: "None",
        timeoutSeconds: 10,
      },
    ],
  };
  await seed.apply(configuration, "registry-cache");
  parts.defer(async () => void (await seed.delete(configuration)));
  return parts;
}

function judge(object: unknown): AdmissionVerdict {
  const { spec } = object as OperatingSystemConfig;
  const containerd = spec.criConfig?.containerd;
  if (spec.purpose !== "reconcile" || !containerd) return { allowed: true };
  const value = ENTRIES.reduce((registries, entry) => {
    const index = registries.findIndex(({ upstream }) => upstream === entry.upstream);
    return index < 0 ? [...registries, entry] : registries.with(index, entry);
  }, containerd.registries ?? []);
  return { allowed: true, patch: [{ op: "add", path: "/spec/criConfig/containerd/registries", value }] };
}

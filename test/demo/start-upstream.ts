// SPDX-License-Identifier: Apache-2.0
import { createKeyPair, issueAuthority, issueLeaf } from "#pki";
import { type Registry, startRegistry } from "../kit/registry/index.ts";
import type { DemoImage } from "./demo-image.ts";

/** The registry that images come from, under a name that only the nodes' resolver knows. */
export interface Upstream {
  /** As it stands in image names. */
  readonly host: string;
  readonly registry: Registry;
  /** PEM of the authority that signed its certificate; every node trusts it. */
  readonly authority: string;
}

export const UPSTREAM_HOST = "registry.example.test";
const VALIDITY_MS = 24 * 3_600_000;

export async function startUpstream(
  images: readonly DemoImage[],
  options: { readonly signal: AbortSignal },
  running: AsyncDisposableStack,
): Promise<Upstream> {
  const issue = { validityMs: VALIDITY_MS, nowMs: Date.now() };
  const [authorityKey, key] = await Promise.all([
    createKeyPair({ bits: 2048 }),
    createKeyPair({ bits: 2048 }),
  ]);
  const authority = await issueAuthority({ ...issue, commonName: "demo registry", key: authorityKey });
  const leaf = await issueLeaf(authority, {
    ...issue,
    usage: "server",
    commonName: UPSTREAM_HOST,
    dnsNames: [UPSTREAM_HOST],
    key,
  });
  const registry = running.use(
    await startRegistry({
      tls: { certificate: leaf.certificatePem, key: leaf.privateKeyPem },
      signal: options.signal,
    }),
  );
  for (const image of images) await registry.push(image.layout, image.tag, image.repository, options);
  return { host: UPSTREAM_HOST, registry, authority: authority.certificatePem };
}

// SPDX-License-Identifier: Apache-2.0
import type { OperatingSystemConfig } from "#api/gardener";
import { judgeContext, type LoadContext, type NodeSettings } from "./context.ts";
import { addCertificates, addConfiguration, addExecutable } from "./files.ts";
import { type JSONPatchOperation, toJsonPatch } from "./json-patch.ts";
import type { NodeOptions } from "./options.ts";
import { parseOSC, skipForeign } from "./parse.ts";
import { addContainerdPlugins } from "./plugins.ts";
import { addRegistries } from "./registries.ts";
import { addUnits, writtenRegistryPort } from "./units.ts";

/** What becomes of an OperatingSystemConfig. An empty patch means that it has all additions already. */
export type Mutation =
  | { readonly kind: "leave"; readonly reason: string }
  | { readonly kind: "deny"; readonly message: string }
  | { readonly kind: "change"; readonly patch: readonly JSONPatchOperation[] };

/**
 * Changes an OperatingSystemConfig so that its nodes run spegel.
 *
 * The result depends on the object, the context and the options alone: no clock, no random. A different byte
 * would change the checksum of the node's configuration and restart units on every node.
 *
 * @param object the object of the admission request as raw JSON; it is not changed
 * @throws OSCError OSC_OBJECT_INVALID, OSC_STATUS_INVALID; and what `loadContext` rejects with
 */
export async function mutateOSC(
  object: unknown,
  request: { readonly namespace: string; readonly loadContext: LoadContext; readonly signal: AbortSignal },
  options: NodeOptions,
): Promise<Mutation> {
  const reason = skipForeign(object);
  if (reason !== undefined) return { kind: "leave", reason };
  const osc = parseOSC(object);
  const context = await request.loadContext(request.namespace, osc, request);
  const verdict = judgeContext(context, options);
  if (verdict.kind !== "change") return verdict;
  return { kind: "change", patch: toJsonPatch(osc, addSpegel(osc, verdict.node)) };
}

/** All additions, in their order. Pure, and adding twice is adding once. */
export function addSpegel(osc: OperatingSystemConfig, node: NodeSettings): OperatingSystemConfig {
  const formerPort = writtenRegistryPort(osc);
  let draft = addExecutable(osc, node);
  draft = addCertificates(draft, node);
  draft = addConfiguration(draft, node);
  draft = addUnits(draft, node);
  draft = addRegistries(draft, node, formerPort === undefined ? [] : [formerPort]);
  return addContainerdPlugins(draft);
}

// SPDX-License-Identifier: Apache-2.0
/**
 * Change an OperatingSystemConfig so that its nodes run spegel: `mutate.ts` is the table of contents.
 *
 * Pure over raw JSON; the only I/O is the `loadContext` that is handed in.
 */
export type { ClusterView, ExtensionView, LoadContext, NodeSettings, OSCContext } from "./context.ts";
export { OSCError, type OSCErrorCode } from "./errors.ts";
export type { JSONPatchOperation } from "./json-patch.ts";
export { addSpegel, type Mutation, mutateOSC } from "./mutate.ts";
export { type NodeOptions, type OSCOptions, resolveOptions } from "./options.ts";
export { createOSCWebhook, type OSCWebhook, type OSCWebhookDeps } from "./webhook.ts";

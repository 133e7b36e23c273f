// SPDX-License-Identifier: Apache-2.0
/**
 * The Kubernetes API: a small client, informers, a work queue, leader election, registration of webhooks.
 *
 * Requests go over node:https. @kubernetes/client-node is used for one thing alone, the sign-in plugins of
 * kubeconfigs, and only by programs that import `signInWithPlugin`: as a whole it would add 21 MB of memory, its
 * watch ends after 30 quiet seconds, and it ignores `tokenFile`.
 */
export {
  createKubeClient,
  type DeletePreconditions,
  isTransient,
  type KubeClient,
  type ListQuery,
  type ObjectPage,
  type WatchQuery,
} from "./client.ts";
export { KubeError, type KubeErrorCode } from "./errors.ts";
export { beat, type HeartbeatOptions } from "./heartbeat.ts";
export { createInformer, type Informer, type InformerEvent, type InformerOptions } from "./informer.ts";
export {
  type KubeConnection,
  type KubeCredential,
  type LoadKubeConfigOptions,
  loadKubeConfig,
  type PluginSignIn,
  parseKubeConfig,
} from "./kubeconfig.ts";
export { createLeaderCampaign, type LeaderCampaign, type LeaderCampaignDeps } from "./leader-campaign.ts";
export { type LeaderElectionOptions, runAsLeader } from "./leader-election.ts";
export type { LeaseOptions } from "./lease-candidate.ts";
export { formatMicroTime, formatTime } from "./micro-time.ts";
export { signInWithPlugin } from "./plugin-sign-in.ts";
export {
  apiVersionOf,
  type KubeMetadata,
  type KubeObject,
  keyOf,
  LEASES,
  type Lease,
  NAMESPACES,
  NODES,
  type ObjectName,
  type OwnerReference,
  parseKey,
  type Resource,
  SECRETS,
  type Secret,
} from "./resource.ts";
export type { TransportOptions } from "./transport.ts";
export type { WatchEvent } from "./watch-stream.ts";
export {
  registerWebhook,
  type WebhookRegistration,
  type WebhookTarget,
  webhookClientConfig,
  webhookServerNames,
} from "./webhook-configuration.ts";
export { createWorkQueue, type WorkOutcome, type WorkQueue, type WorkQueueOptions } from "./work-queue.ts";

// SPDX-License-Identifier: Apache-2.0
/**
 * Keeps the swarm told what this node holds.
 *
 * `reconcile.ts` is the table of contents: list, filter, diff, advertise, withdraw. Hints of the store only make it
 * sooner. Nothing here knows libp2p or containerd.
 */
export { type Advertiser, type AdvertiserOptions, createAdvertiser } from "./advertiser.ts";
export { createAdvertiseMetrics } from "./metrics.ts";
export type { AdvertisedCounts, AdvertiseMetrics, Clock, Filters } from "./ports.ts";

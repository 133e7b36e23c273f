// SPDX-License-Identifier: Apache-2.0
import type { Cluster } from "#api/gardener";
import { ExtensionError } from "./errors.ts";

/** What a Cluster says about its Shoot, as far as it matters here. */
export interface ShootFacts {
  readonly technicalID: string;
  /** Wanted, not yet reached: that is when our workload has to go. */
  readonly isHibernated: boolean;
  /** False for the purpose `testing`: such Shoots have no Prometheus. */
  readonly isMonitored: boolean;
  /** Without nodes, or with a control plane on its own nodes: there is nothing to do. */
  readonly idleReason?: "workerless" | "self-hosted";
  /** Absent when the seed has no ingress. */
  readonly ingressDomain?: string;
  /** The preferred one first. */
  readonly ipFamilies: readonly ("IPv4" | "IPv6")[];
  readonly genericKubeconfigSecretName: string;
  readonly rotation: { readonly phase?: string; readonly lastInitiationTimeMs?: number };
}

const KUBECONFIG_ANNOTATION = "generic-token-kubeconfig.secret.gardener.cloud/name";
const DEFAULT_KUBECONFIG = "generic-token-kubeconfig";
const FORCE_DELETION_ANNOTATION = "confirmation.gardener.cloud/force-deletion";

/** @throws ExtensionError EXTENSION_CLUSTER_INVALID, naming the field */
export function readShoot(cluster: Cluster): ShootFacts {
  const shoot = cluster.spec?.shoot;
  if (typeof shoot !== "object" || shoot === null) throw invalid(cluster, "spec.shoot is missing");
  const technicalID = shoot.status?.technicalID ?? cluster.metadata.name;
  if (typeof technicalID !== "string")
    throw invalid(cluster, "spec.shoot.status.technicalID is not a string");
  const workers = list(cluster, shoot.spec?.provider?.workers, "spec.shoot.spec.provider.workers");
  const seed = cluster.spec?.seed;
  const isSelfHosted =
    !seed || workers.some((worker) => worker?.controlPlane !== undefined && worker.controlPlane !== null);
  const domain = seed?.spec?.ingress?.domain;
  const { phase, lastInitiationTime } = shoot.status?.credentials?.rotation?.certificateAuthorities ?? {};
  return {
    technicalID,
    isHibernated: shoot.spec?.hibernation?.enabled === true,
    isMonitored: shoot.spec?.purpose !== "testing",
    ...(isSelfHosted ? { idleReason: "self-hosted" } : workers.length === 0 && { idleReason: "workerless" }),
    ...(typeof domain === "string" && domain !== "" && { ingressDomain: domain }),
    ipFamilies: ipFamilies(cluster, shoot.spec?.networking?.ipFamilies),
    genericKubeconfigSecretName: cluster.metadata.annotations?.[KUBECONFIG_ANNOTATION] ?? DEFAULT_KUBECONFIG,
    rotation: {
      ...(phase !== undefined && { phase }),
      ...(lastInitiationTime && { lastInitiationTimeMs: time(cluster, lastInitiationTime) }),
    },
  };
}

/** True when gardenlet has given up on the Shoot: nobody is to touch it then. */
export function hasFailed(cluster: Cluster): boolean {
  return cluster.spec?.shoot?.status?.lastOperation?.state === "Failed";
}

/**
 * True while nobody is there to take objects out of the Shoot: its resource manager is scaled down with its API server.
 * A Shoot that is being deleted has been woken up for that.
 */
export function isAsleep(cluster: Cluster | undefined): boolean {
  const { spec, metadata } = cluster?.spec?.shoot ?? {};
  return spec?.hibernation?.enabled === true && !metadata?.deletionTimestamp;
}

/** True when the Shoot goes without waiting for what its API server would have to do. */
export function isForceDeleted(cluster: Cluster | undefined): boolean {
  const value = cluster?.spec?.shoot?.metadata?.annotations?.[FORCE_DELETION_ANNOTATION];
  return ["1", "t", "T", "true", "TRUE", "True"].includes(value ?? ""); // Go's strconv.ParseBool
}

function ipFamilies(cluster: Cluster, families: readonly string[] | undefined): readonly ("IPv4" | "IPv6")[] {
  const known = list(cluster, families, "spec.shoot.spec.networking.ipFamilies").filter(
    (family) => family === "IPv4" || family === "IPv6",
  );
  return known.length === 0 ? ["IPv4"] : [...new Set(known)];
}

function list<T>(cluster: Cluster, value: readonly T[] | undefined | null, field: string): readonly T[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw invalid(cluster, `${field} is not a list`);
  return value;
}

function time(cluster: Cluster, text: string): number {
  const timeMs = Date.parse(text);
  if (Number.isNaN(timeMs)) throw invalid(cluster, "the lastInitiationTime of the rotation is not a time");
  return timeMs;
}

function invalid(cluster: Cluster, problem: string): ExtensionError {
  return new ExtensionError({
    code: "EXTENSION_CLUSTER_INVALID",
    message: `Cluster ${cluster.metadata.name}: ${problem}`,
  });
}

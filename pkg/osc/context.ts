// SPDX-License-Identifier: Apache-2.0
import type { OperatingSystemConfig } from "#api/gardener";
import { SPEGEL_PORT_FIELDS, type SpegelStatus, SpegelStatusSchema } from "#api/spegel";
import { ConfigError, createDecoder } from "#config";
import { OSCError } from "./errors.ts";
import type { NodeOptions } from "./options.ts";

/** The `Cluster` of a Shoot's namespace, as far as the webhook reads it. */
export interface ClusterView {
  readonly spec?: {
    readonly shoot?: {
      readonly metadata?: { readonly deletionTimestamp?: string | null };
      readonly spec?: {
        readonly hibernation?: { readonly enabled?: boolean | null } | null;
        readonly provider?: {
          /** `controlPlane` is set on the pool that runs the control plane of a self-hosted Shoot. */
          readonly workers?: readonly { readonly controlPlane?: object | null }[] | null;
        };
      };
    } | null;
    /** Absent for self-hosted Shoots. */
    readonly seed?: object | null;
  };
}

/** The Extension `registry-spegel` of a Shoot's namespace, as far as the webhook reads it. */
export interface ExtensionView {
  readonly metadata?: { readonly deletionTimestamp?: string | null };
  readonly status?: { readonly providerStatus?: unknown } | null;
}

export interface OSCContext {
  readonly cluster: ClusterView;
  readonly extension?: ExtensionView | undefined;
}

/**
 * Reads both objects of a namespace; undefined when it has no Cluster. Rejects when the API cannot be read.
 * @param osc says when it was written: what is read must not be from before that reconciliation of the Shoot
 */
export type LoadContext = (
  namespace: string,
  osc: Pick<OperatingSystemConfig, "metadata">,
  options: { readonly signal: AbortSignal },
) => Promise<OSCContext | undefined>;

/** All that the additions depend on. */
export interface NodeSettings extends NodeOptions, Omit<SpegelStatus, "apiVersion" | "kind" | "image"> {}

/** What the context means for an OperatingSystemConfig. */
export type ContextVerdict =
  | { readonly kind: "leave"; readonly reason: string }
  | { readonly kind: "deny"; readonly message: string }
  | { readonly kind: "change"; readonly node: NodeSettings };

/**
 * Decides by the Shoot's Cluster and Extension whether nodes get spegel.
 *
 * The namespace carries our label before the Extension exists and for a while after it is gone, so its absence
 * is no error. Only a Shoot that is awake and whose Extension has not reported yet is denied: gardenlet retries,
 * and a node configuration without the mirror would otherwise be rolled out twice.
 *
 * @throws OSCError OSC_STATUS_INVALID
 */
export function judgeContext(context: OSCContext | undefined, options: NodeOptions): ContextVerdict {
  if (context === undefined) return leave("the namespace has no Cluster");
  const { shoot, seed } = context.cluster.spec ?? {};
  if (shoot === undefined || shoot === null) return leave("the Cluster has no Shoot");
  if (isSet(shoot.metadata?.deletionTimestamp)) return leave("the Shoot is being deleted");
  const hostsItself =
    shoot.spec?.provider?.workers?.some((worker) => isPresent(worker.controlPlane)) ?? false;
  if (!isPresent(seed) || hostsItself) return leave("the Shoot is self-hosted");
  const { extension } = context;
  if (extension === undefined) return leave("the Extension does not exist");
  if (isSet(extension.metadata?.deletionTimestamp)) return leave("the Extension is being deleted");
  const status = extension.status?.providerStatus;
  if (isPresent(status)) {
    return { kind: "change", node: settingsOf(status, options) };
  }
  if (shoot.spec?.hibernation?.enabled === true) return leave("the Shoot is hibernated");
  return {
    kind: "deny",
    message: "Extension registry-spegel has no providerStatus yet; retry once it is reconciled",
  };
}

function leave(reason: string): ContextVerdict {
  return { kind: "leave", reason };
}

function isSet(timestamp: string | null | undefined): boolean {
  return isPresent(timestamp) && timestamp !== "";
}

function isPresent(value: unknown): boolean {
  return value !== undefined && value !== null;
}

/** While replicas are replaced, the leader may be of a newer version than the webhook that reads what it reports. */
const decodeStatus = createDecoder<SpegelStatus>(SpegelStatusSchema, { unknownFields: "leave out" });
/** By the status that was decoded: one that comes from a cache is the same object until the Extension changes. */
const decoded = new WeakMap<object, { readonly options: NodeOptions; readonly node: NodeSettings }>();

function settingsOf(raw: unknown, options: NodeOptions): NodeSettings {
  const known = decoded.get(raw as object);
  if (known?.options === options) return known.node;
  const { apiVersion: _apiVersion, kind: _kind, image, ...rest } = parseStatus(raw);
  const node = { ...options, ...rest, image: image ?? options.image };
  decoded.set(raw as object, { options, node });
  return node;
}

function parseStatus(raw: unknown): SpegelStatus {
  const path = "Extension.status.providerStatus";
  try {
    const status = decodeStatus(raw, path);
    const ports = new Set(SPEGEL_PORT_FIELDS.map((field) => status[field]));
    if (ports.size === SPEGEL_PORT_FIELDS.length) return status;
    throw new OSCError({ code: "OSC_STATUS_INVALID", message: `${path}: two of its ports are equal` });
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    throw new OSCError({ code: "OSC_STATUS_INVALID", message: error.message });
  }
}

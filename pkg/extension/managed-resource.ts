// SPDX-License-Identifier: Apache-2.0
import { isDeepStrictEqual } from "node:util";
import { brotliCompressSync, constants } from "node:zlib";
import { stringify } from "yaml";
import type { ManagedResource } from "#api/gardener";
import { createBackoff, sleep } from "#async";
import { hasCode } from "#errors";
import { type KubeClient, type KubeObject, SECRETS, type Secret } from "#kube";
import { ExtensionError, stillLeaving } from "./errors.ts";
import { secretReferences, sha256Hex } from "./gardener-references.ts";
import { MANAGED_RESOURCES } from "./names.ts";

interface Cancel {
  readonly signal: AbortSignal;
}

export interface ManagedResourceSettings {
  readonly name: string;
  readonly namespace: string;
  /** Absent: the Shoot. */
  readonly class?: "seed";
  readonly labels?: Readonly<Record<string, string>>;
  readonly injectLabels?: Readonly<Record<string, string>>;
  readonly objects: readonly KubeObject[];
}

/** Key of the payload; the resource manager decompresses keys that end in `.br`. */
const PAYLOAD_KEY = "data.yaml.br";

/** The default of 11 takes eight milliseconds of every reconciliation for a tenth of the size. */
const COMPRESSION_QUALITY = 5;

/** The immutable secret that a ManagedResource points to. Equal objects give the same name. */
export function payloadSecret(
  settings: Pick<ManagedResourceSettings, "name" | "namespace" | "objects">,
): Secret {
  const { name, namespace } = settings;
  const text = settings.objects.map(document).join("");
  const compressed = brotliCompressSync(text, {
    params: {
      [constants.BROTLI_PARAM_SIZE_HINT]: text.length,
      [constants.BROTLI_PARAM_QUALITY]: COMPRESSION_QUALITY,
    },
  });
  return {
    metadata: {
      // The hash is of the plain text: another version of the compressor must not make another name.
      name: `managedresource-${name}-${sha256Hex(text).slice(0, 8)}`,
      namespace,
      labels: { "resources.gardener.cloud/garbage-collectable-reference": "true" },
    },
    type: "Opaque",
    immutable: true,
    data: { [PAYLOAD_KEY]: compressed.toString("base64") },
  };
}

/** Every string and key quoted: the reader is a YAML 1.1 parser, which takes a bare `on` for a boolean. */
function document(object: KubeObject): string {
  return `---\n${stringify(object, { defaultStringType: "QUOTE_DOUBLE", lineWidth: 0, aliasDuplicateObjects: false })}`;
}

/**
 * Creates or updates a ManagedResource and its payload; changes nothing when both are as wanted. The former payload
 * is left to the resource manager's garbage collector, which first has to see the new reference.
 * @throws ExtensionError EXTENSION_NOT_DELETED when a former one is still on its way out
 */
export async function applyManagedResource(
  client: KubeClient,
  settings: ManagedResourceSettings,
  cancel: Cancel,
): Promise<void> {
  const payload = payloadSecret(settings);
  const wanted = managedResource(settings, payload.metadata.name);
  const present = await client.find(MANAGED_RESOURCES, wanted.metadata, cancel);
  if (present?.metadata.deletionTimestamp) throw stillLeaving(`ManagedResource ${settings.name}`);
  if (present === undefined) {
    await ensureSecret(client, payload, cancel);
    await client.create(MANAGED_RESOURCES, wanted, cancel);
    return;
  }
  const change = difference(present, wanted);
  const isPayloadThere = (await client.find(SECRETS, payload.metadata, cancel)) !== undefined;
  if (!isPayloadThere) await ensureSecret(client, payload, cancel);
  if (change !== undefined) await client.mergePatch(MANAGED_RESOURCES, wanted.metadata, change, cancel);
}

async function ensureSecret(client: KubeClient, secret: Secret, cancel: Cancel): Promise<void> {
  try {
    await client.create(SECRETS, secret, cancel);
  } catch (error) {
    if (!hasCode(error, "KUBE_ALREADY_EXISTS")) throw error;
  }
}

function managedResource(settings: ManagedResourceSettings, payloadName: string): ManagedResource {
  return {
    metadata: {
      name: settings.name,
      namespace: settings.namespace,
      ...(settings.labels && { labels: settings.labels }),
      annotations: secretReferences([payloadName]),
    },
    spec: {
      ...(settings.class && { class: settings.class }),
      secretRefs: [{ name: payloadName }],
      ...(settings.injectLabels && { injectLabels: settings.injectLabels }),
      keepObjects: false,
    },
  };
}

const REFERENCE_PREFIX = "reference.resources.gardener.cloud/";

/** The merge patch from `present` to `wanted`, undefined when there is nothing to change. Foreign fields stay. */
function difference(present: ManagedResource, wanted: ManagedResource): object | undefined {
  const outdated = Object.keys(present.metadata.annotations ?? {}).filter(
    (key) => key.startsWith(REFERENCE_PREFIX) && wanted.metadata.annotations?.[key] === undefined,
  );
  const annotations = {
    ...wanted.metadata.annotations,
    ...Object.fromEntries(outdated.map((key) => [key, null])),
  };
  const isSame =
    outdated.length === 0 &&
    contains(present.metadata.annotations, wanted.metadata.annotations) &&
    contains(present.metadata.labels, wanted.metadata.labels) &&
    Object.entries(wanted.spec).every(([key, value]) =>
      isDeepStrictEqual(present.spec[key as keyof ManagedResource["spec"]], value),
    );
  if (isSame) return undefined;
  return {
    metadata: { ...(wanted.metadata.labels && { labels: wanted.metadata.labels }), annotations },
    spec: wanted.spec,
  };
}

function contains(
  present: Readonly<Record<string, string>> = {},
  wanted: Readonly<Record<string, string>> = {},
): boolean {
  return Object.entries(wanted).every(([key, value]) => present[key] === value);
}

/** Keeps the objects in the cluster when the ManagedResource goes. One that does not exist is no error. */
export async function keepObjects(
  client: KubeClient,
  name: { namespace: string; name: string },
  cancel: Cancel,
): Promise<void> {
  try {
    await client.mergePatch(MANAGED_RESOURCES, name, { spec: { keepObjects: true } }, cancel);
  } catch (error) {
    if (!hasCode(error, "KUBE_NOT_FOUND")) throw error;
  }
}

/** What keeps a ManagedResource from being ready, or undefined. */
export function notReadyReason(resource: ManagedResource): string | undefined {
  const { status, metadata } = resource;
  if (status?.observedGeneration !== metadata.generation) return "its last change has not been seen yet";
  for (const [type, wanted] of [
    ["ResourcesApplied", "True"],
    ["ResourcesHealthy", "True"],
    ["ResourcesProgressing", "False"],
  ] as const) {
    const condition = status?.conditions?.find((each) => each.type === type);
    if (condition?.status !== wanted) {
      const message = condition?.message ?? "not reported yet";
      return `${type} is ${condition?.status ?? "Unknown"}: ${message.slice(0, 500)}`;
    }
  }
  return undefined;
}

interface WaitOptions extends Cancel {
  readonly pollIntervalMs: number;
  readonly timeoutMs: number;
}

/** @throws ExtensionError EXTENSION_NOT_HEALTHY, naming what is wrong, when it takes longer than `timeoutMs` */
export async function awaitReady(
  client: KubeClient,
  name: { namespace: string; name: string },
  options: WaitOptions,
): Promise<void> {
  let reason: string | undefined;
  await poll(options, async () => {
    const resource = await client.find(MANAGED_RESOURCES, name, options);
    reason = resource === undefined ? "it does not exist" : notReadyReason(resource);
    return reason === undefined;
  });
  if (reason === undefined) return;
  throw new ExtensionError({
    code: "EXTENSION_NOT_HEALTHY",
    message: `ManagedResource ${name.name} is not ready: ${reason}`,
  });
}

/** @throws ExtensionError EXTENSION_NOT_DELETED when it takes longer than `timeoutMs` */
export async function awaitGone(
  client: KubeClient,
  name: { namespace: string; name: string },
  options: WaitOptions,
): Promise<void> {
  let isGone = false;
  await poll(options, async () => {
    isGone = (await client.find(MANAGED_RESOURCES, name, options)) === undefined;
    return isGone;
  });
  if (isGone) return;
  throw new ExtensionError({
    code: "EXTENSION_NOT_DELETED",
    message: `ManagedResource ${name.name} still exists`,
  });
}

/** A worker waits here: what is quickly done must not hold it for a whole interval. */
const FIRST_POLL_MS = 250;

/** Looks until the condition holds or the time is over, at least once. */
async function poll(options: WaitOptions, isDone: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + options.timeoutMs;
  const initialMs = Math.min(FIRST_POLL_MS, options.pollIntervalMs);
  const pause = createBackoff({ initialMs, maxMs: options.pollIntervalMs });
  while (!(await isDone()) && performance.now() < deadline) await sleep(pause.next(), options);
}

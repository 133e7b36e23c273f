// SPDX-License-Identifier: Apache-2.0
import { isDeepStrictEqual } from "node:util";
import type { Cluster, Extension, OperationType } from "#api/gardener";
import { sleep } from "#async";
import { hasCode } from "#errors";
import { NAMESPACES, type ObjectName, parseKey, type WorkOutcome } from "#kube";
import { ExtensionError, goneMeanwhile } from "./errors.ts";
import { CLUSTERS, EXTENSIONS, FINALIZER, OPERATION_ANNOTATION, TIMESTAMP_ANNOTATION } from "./names.ts";
import { isHandedOver, operationOf, requestedOperation } from "./operation.ts";
import { stepsOf } from "./reconcile.ts";
import { hasFailed, isForceDeleted } from "./shoot.ts";
import { failed, processing, type StatusPatch, succeeded } from "./status.ts";
import type { Run, StepDeps } from "./step.ts";

export interface RunnerDeps extends StepDeps {
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

interface Cancel {
  readonly signal: AbortSignal;
}

/** Steps end this long before the run does, so that their failure can still be reported. */
const REPORT_RESERVE_MS = 15_000;
const FINALIZER_ATTEMPTS = 5;

/**
 * Handles one Extension: decides on the operation, runs its steps and alone writes its status, finalizer and
 * operation annotation, in the order of Gardener's extension library (controller/extension/reconciler.go).
 * @param key `namespace/name`
 * @throws what made a step fail, after it was reported, when trying again may help
 */
export async function runExtension(
  deps: RunnerDeps,
  key: string,
  { signal, timeoutMs }: Cancel & { readonly timeoutMs: number },
): Promise<WorkOutcome> {
  const { client } = deps;
  const name = parseKey(key) as Required<ObjectName>;
  const cancel = { signal };
  let extension = await client.find(EXTENSIONS, name, cancel);
  if (extension === undefined) return undefined;
  const requested = requestedOperation(extension);
  if (requested === "wait-for-state") return undefined;
  if (requested === "reconcile") extension = await removeAnnotation(deps, name, cancel);
  const cluster = await readCluster(deps, name.namespace, cancel);
  if (cluster !== undefined && hasFailed(cluster)) return undefined;
  const operation = operationOf(extension);
  if (isHandedOver(extension, operation)) return undefined;
  const isOurs = extension.metadata.finalizers?.includes(FINALIZER) === true;
  if (operation === "Delete" && !isOurs) return undefined;
  if (operation !== "Delete" && operation !== "Migrate" && !isOurs)
    extension = await addFinalizer(deps, name, extension, cancel);
  const now = clockFor(extension, deps.now);
  const asked = { operation, extension, name, cluster, signal, timeoutMs };
  try {
    await runSteps({ ...deps, now }, asked);
  } catch (error) {
    if (!hasCode(error, "EXTENSION_GONE")) return stopOrRetry(error);
    if (operation !== "Migrate") await takeBack(deps, asked);
    return undefined;
  }
  await conclude(deps, name, operation, cancel);
  return undefined;
}

/** Beyond it a timestamp is a mistake and not a clock that is ahead of ours. */
const MAX_CLOCK_SKEW_MS = 600_000;

/**
 * gardenlet waits for a report that is not older than its request, by its own clock. Where that is ahead of ours, the
 * time of the request counts: a report of it cannot be older.
 */
function clockFor(extension: Extension, now: () => number): () => number {
  const requestedAtMs = Date.parse(extension.metadata.annotations?.[TIMESTAMP_ANNOTATION] ?? "");
  return () => {
    const nowMs = now();
    const isAhead = requestedAtMs > nowMs && requestedAtMs - nowMs <= MAX_CLOCK_SKEW_MS;
    return isAhead ? requestedAtMs : nowMs;
  };
}

interface Operation extends Cancel {
  readonly operation: OperationType;
  readonly extension: Extension;
  readonly name: Required<ObjectName>;
  readonly cluster: Cluster | undefined;
  readonly timeoutMs: number;
}

/** @throws ExtensionError EXTENSION_GONE; KubeError */
type WriteStatus = (patch: StatusPatch) => Promise<void>;

/** Processing, then each step, then Succeeded; or Error, with the reason. */
async function runSteps(deps: RunnerDeps, asked: Operation): Promise<void> {
  const { operation, extension, name, cluster, signal } = asked;
  const generation = extension.metadata.generation ?? 0;
  const write: WriteStatus = async (patch) => {
    try {
      await deps.client.mergePatchStatus(EXTENSIONS, name, patch, { signal });
    } catch (error) {
      throw hasCode(error, "KUBE_NOT_FOUND") ? goneMeanwhile(error) : error;
    }
  };
  const logger = deps.logger.child({ namespace: name.namespace, operation });
  await write(processing(operation, deps.now()));
  const run = startRun(asked);
  let detail: string | undefined;
  try {
    for (const step of stepsOf(operation, { force: isForceDeleted(cluster) })) {
      logger.debug("running a step", { step: step.name });
      const outcome = await step(run, { ...deps, logger });
      if (outcome === undefined) continue;
      await reportProviderStatus(extension, outcome.providerStatus, write);
      if (outcome.kind !== "finish") continue;
      detail = outcome.reason;
      break;
    }
    await write(succeeded(operation, generation, deps.now(), detail));
    logger.info("Extension is as it should be", detail === undefined ? {} : { detail });
  } catch (error) {
    // Aborted from outside: whoever leads next takes the operation up, its state says that it is not finished.
    if (signal.aborted || hasCode(error, "EXTENSION_GONE")) throw error;
    await write(failed(operation, generation, deps.now(), error)).catch((unwritten: unknown) => {
      if (hasCode(unwritten, "EXTENSION_GONE")) throw unwritten;
    });
    throw error;
  }
}

/** What steps begin with. Their signal leaves time to report that they took too long. */
function startRun({ extension, name, cluster, signal, timeoutMs }: Operation): Run {
  const limit = AbortSignal.timeout(Math.max(1, timeoutMs - REPORT_RESERVE_MS));
  return { extension, namespace: name.namespace, cluster, signal: AbortSignal.any([signal, limit]) };
}

/**
 * Deletes what steps made for an Extension that is gone: an API server that decided to delete it while it had no
 * finalizer deletes it although it gets one before it is done, and then nobody asks for a Delete.
 */
async function takeBack(deps: RunnerDeps, asked: Operation): Promise<void> {
  const run = startRun(asked);
  const logger = deps.logger.child({ namespace: run.namespace, operation: "Delete" });
  logger.warn("Extension was deleted in spite of its finalizer, taking back what was made for it");
  for (;;) {
    try {
      for (const step of stepsOf("Delete", { force: isForceDeleted(run.cluster) }))
        await step(run, { ...deps, logger });
      return;
    } catch (error) {
      // There is no later run: the next one would find no Extension, and no reason to do anything.
      run.signal.throwIfAborted();
      logger.warn("what was made could not be taken back, will try again", { err: error });
      await sleep(deps.options.pollIntervalMs, run);
    }
  }
}

async function reportProviderStatus(
  extension: Extension,
  providerStatus: object | null,
  write: WriteStatus,
): Promise<void> {
  const present = extension.status?.providerStatus ?? null;
  if (isDeepStrictEqual(present, providerStatus)) return;
  // A merge patch keeps what it does not name, such as the fields of another version.
  const outdated = providerStatus === null ? [] : Object.keys(Object(present));
  const removed = Object.fromEntries(outdated.map((field) => [field, null]));
  await write({ status: { providerStatus: providerStatus && { ...removed, ...providerStatus } } });
}

/** What comes after success: the object is let go, or its annotation says that the request was fulfilled. */
async function conclude(
  deps: RunnerDeps,
  name: ObjectName,
  operation: OperationType,
  cancel: Cancel,
): Promise<void> {
  if (operation === "Delete")
    await removeFinalizers(deps, name, (finalizer) => finalizer === FINALIZER, cancel);
  if (operation === "Migrate") await removeFinalizers(deps, name, () => true, cancel);
  if (operation === "Migrate" || operation === "Restore") {
    await ifPresent(() => removeAnnotation(deps, name, cancel));
  }
}

function stopOrRetry(error: unknown): WorkOutcome {
  if (error instanceof ExtensionError && error.retry === "never") return undefined;
  throw error;
}

function removeAnnotation({ client }: RunnerDeps, name: ObjectName, cancel: Cancel): Promise<Extension> {
  return client.mergePatch(
    EXTENSIONS,
    name,
    { metadata: { annotations: { [OPERATION_ANNOTATION]: null } } },
    cancel,
  );
}

/** The lock keeps a finalizer that somebody adds at the same time. @throws KubeError KUBE_CONFLICT */
function addFinalizer(
  { client }: RunnerDeps,
  name: ObjectName,
  extension: Extension,
  cancel: Cancel,
): Promise<Extension> {
  const { resourceVersion, finalizers = [] } = extension.metadata;
  const metadata = { resourceVersion, finalizers: [...finalizers, FINALIZER] };
  return client.mergePatch(EXTENSIONS, name, { metadata }, cancel);
}

async function removeFinalizers(
  { client }: RunnerDeps,
  name: ObjectName,
  isRemoved: (finalizer: string) => boolean,
  cancel: Cancel,
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const extension = await client.find(EXTENSIONS, name, cancel);
    const { resourceVersion, finalizers = [] } = extension?.metadata ?? {};
    const rest = finalizers.filter((finalizer) => !isRemoved(finalizer));
    if (extension === undefined || rest.length === finalizers.length) return;
    try {
      const patch = { metadata: { resourceVersion, finalizers: rest } };
      return await ifPresent(() => client.mergePatch(EXTENSIONS, name, patch, cancel));
    } catch (error) {
      if (!hasCode(error, "KUBE_CONFLICT") || attempt === FINALIZER_ATTEMPTS) throw error;
    }
  }
}

async function ifPresent(action: () => Promise<unknown>): Promise<void> {
  try {
    await action();
  } catch (error) {
    if (!hasCode(error, "KUBE_NOT_FOUND")) throw error;
  }
}

/** The Cluster of a Shoot's namespace. */
async function readCluster(
  { client }: RunnerDeps,
  namespace: string,
  cancel: Cancel,
): Promise<Cluster | undefined> {
  const found = await client.find(NAMESPACES, { name: namespace }, cancel);
  if (found?.metadata.labels?.["gardener.cloud/role"] !== "shoot") return undefined;
  return await client.find(CLUSTERS, { name: namespace }, cancel);
}

// SPDX-License-Identifier: Apache-2.0
import { createInformer, createWorkQueue, type WorkOutcome, type WorkQueueOptions } from "#kube";
import { callsForRun, traceOf } from "./event-filter.ts";
import type { ExtensionMetrics } from "./metrics.ts";
import { CLUSTERS, EXTENSION_TYPE, EXTENSIONS } from "./names.ts";
import { type RunnerDeps, runExtension } from "./runner.ts";

export interface ExtensionControllerDeps extends RunnerDeps {
  readonly metrics?: ExtensionMetrics;
}

export interface ExtensionControllerOptions {
  /** Extensions handled at a time; default 5. */
  readonly workers?: number;
  /** Time for one run; default 3 min. */
  readonly timeoutMs?: number;
  readonly backoff?: WorkQueueOptions["backoff"];
  /** Classes of Extensions that are ours; default `shoot`. */
  readonly classes?: readonly string[];
  /** Act on every change of a spec or a Cluster instead of waiting for gardenlet's annotation; default false. */
  readonly ignoreOperationAnnotation?: boolean;
  /** On disposal, runs under way have this long before they are aborted; default 30 s. */
  readonly drainMs?: number;
}

/** Keeps all Extensions of our type as they should be, until disposed. */
export interface ExtensionController extends AsyncDisposable {
  /** Resolves when no Extension waits or is being worked on; those that wait for a retry do not count. */
  idle(): Promise<void>;
  readonly hasSynced: boolean;
}

const DEFAULT_TIMEOUT_MS = 180_000;

export function startExtensionController(
  deps: ExtensionControllerDeps,
  options: ExtensionControllerOptions = {},
): ExtensionController {
  const { client, logger } = deps;
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  const classes = options.classes ?? ["shoot"];
  const ignoreAnnotation = options.ignoreOperationAnnotation === true;
  const running = new AsyncDisposableStack();

  async function handle(key: string, { signal }: { readonly signal: AbortSignal }): Promise<WorkOutcome> {
    const startedMs = performance.now();
    const observe = (result: "success" | "error"): void =>
      deps.metrics?.observeRun(result, (performance.now() - startedMs) / 1000);
    try {
      const outcome = await runExtension(deps, key, { signal, timeoutMs });
      observe("success");
      return outcome;
    } catch (error) {
      observe("error");
      throw error;
    }
  }

  const queue = running.use(
    createWorkQueue(
      { handle, logger },
      {
        timeoutMs,
        ...(options.workers !== undefined && { workers: options.workers }),
        ...(options.backoff && { backoff: options.backoff }),
        ...(options.drainMs !== undefined && { drainMs: options.drainMs }),
      },
    ),
  );
  const extensions = running.use(
    createInformer(
      { client, logger },
      { resource: EXTENSIONS, trim: (extension) => traceOf(extension, classes) },
    ),
  );
  extensions.subscribe((event) => {
    if (callsForRun(event, { ignoreAnnotation })) queue.add(event.key);
  });
  if (ignoreAnnotation)
    running.use(followClusters(deps, (namespace) => queue.add(`${namespace}/${EXTENSION_TYPE}`)));
  return {
    idle: () => queue.idle(),
    get hasSynced() {
      return extensions.hasSynced;
    },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

/** Only changes: every Extension is handled at the start anyway. */
function followClusters(
  { client, logger }: RunnerDeps,
  onChange: (namespace: string) => void,
): AsyncDisposable {
  const clusters = createInformer(
    { client, logger },
    { resource: CLUSTERS, trim: (cluster) => cluster.metadata.generation ?? 0 },
  );
  clusters.subscribe((event) => {
    if (event.type === "modified" && event.object !== event.previous) onChange(event.key);
  });
  return clusters;
}

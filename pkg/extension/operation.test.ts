// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Extension, OperationState, OperationType } from "#api/gardener";
import { callsForRun, traceOf } from "./event-filter.ts";
import { isHandedOver, operationOf } from "./operation.ts";
import { stepsOf } from "./reconcile.ts";

interface Shape {
  readonly requested?: string;
  readonly at?: string;
  readonly deleting?: boolean;
  readonly last?: readonly [OperationType, OperationState];
  readonly generation?: number;
  readonly type?: string;
  readonly class?: string;
}

function extension(shape: Shape = {}): Extension {
  const { last } = shape;
  return {
    metadata: {
      name: "registry-spegel",
      generation: shape.generation ?? 1,
      ...(shape.requested !== undefined && {
        annotations: {
          "gardener.cloud/operation": shape.requested,
          ...(shape.at !== undefined && { "gardener.cloud/timestamp": shape.at }),
        },
      }),
      ...(shape.deleting && { deletionTimestamp: "2026-01-01T00:00:00Z" }),
    },
    spec: { type: shape.type ?? "registry-spegel", ...(shape.class !== undefined && { class: shape.class }) },
    ...(last && {
      status: {
        lastOperation: { type: last[0], state: last[1], progress: 0, description: "", lastUpdateTime: "" },
      },
    }),
  };
}

test("the operation follows annotation, deletion and the last operation", () => {
  const table: [Shape, OperationType][] = [
    [{}, "Create"],
    [{ requested: "reconcile" }, "Create"],
    [{ requested: "migrate", deleting: true }, "Migrate"],
    [{ requested: "restore", deleting: true }, "Delete"],
    [{ requested: "restore", last: ["Create", "Error"] }, "Restore"],
    [{ deleting: true, last: ["Create", "Error"] }, "Delete"],
    [{ last: ["Create", "Error"] }, "Create"],
    [{ last: ["Create", "Processing"] }, "Create"],
    [{ last: ["Create", "Succeeded"] }, "Reconcile"],
    [{ last: ["Migrate", "Error"] }, "Migrate"],
    [{ last: ["Restore", "Processing"] }, "Restore"],
    [{ last: ["Restore", "Succeeded"] }, "Reconcile"],
    [{ last: ["Reconcile", "Error"] }, "Reconcile"],
    [{ last: ["Delete", "Error"] }, "Reconcile"],
  ];
  for (const [shape, expected] of table)
    assert.equal(operationOf(extension(shape)), expected, JSON.stringify(shape));
});

test("an Extension that was handed over is left alone until it is restored", () => {
  const migrated = extension({ last: ["Migrate", "Succeeded"] });
  for (const operation of ["Create", "Reconcile", "Delete"] as const)
    assert.equal(isHandedOver(migrated, operation), true);
  for (const operation of ["Migrate", "Restore"] as const)
    assert.equal(isHandedOver(migrated, operation), false);
  assert.equal(isHandedOver(extension({ last: ["Migrate", "Error"] }), "Reconcile"), false);
});

test("Extensions of other types and classes are not ours", () => {
  assert.equal(traceOf(extension({ type: "registry-cache" }), ["shoot"]), undefined);
  assert.equal(traceOf(extension({ class: "garden" }), ["shoot"]), undefined);
  assert.equal(traceOf({ metadata: { name: "x" } } as Extension, ["shoot"]), undefined);
  assert.ok(traceOf(extension({ class: "shoot" }), ["shoot"]));
  assert.ok(traceOf(extension({ class: "seed" }), ["shoot", "seed"]));
});

function runs(
  type: "added" | "modified" | "deleted",
  shape: Shape,
  before: Shape = {},
  ignoreAnnotation = false,
): boolean {
  const [object, previous] = [shape, before].map((each) => traceOf(extension(each), ["shoot"])!);
  return callsForRun({ type, key: "k", object: object!, previous: previous! }, { ignoreAnnotation });
}

test("an Extension that is new to us is run when it is asked for, unfinished or going", () => {
  const done: Shape = { last: ["Reconcile", "Succeeded"] };
  assert.equal(runs("added", {}), true);
  assert.equal(runs("added", { last: ["Reconcile", "Error"] }), true);
  assert.equal(runs("added", done), false);
  assert.equal(runs("added", { ...done, requested: "reconcile" }), true);
  assert.equal(runs("added", { ...done, requested: "restore" }), true);
  assert.equal(runs("added", { ...done, requested: "wait-for-state" }), false);
  assert.equal(runs("added", { ...done, deleting: true }), true);
});

test("a change is run when it asks for it or deletes, never for our own status", () => {
  const done: Shape = { last: ["Reconcile", "Succeeded"] };
  assert.equal(runs("modified", { ...done, generation: 2 }, done), false, "plain edits wait for gardenlet");
  assert.equal(runs("modified", { ...done, requested: "reconcile" }, done), true);
  assert.equal(runs("modified", { ...done, deleting: true }, done), true);
  assert.equal(
    runs("modified", { last: ["Delete", "Processing"], deleting: true }, { ...done, deleting: true }),
    false,
  );
  assert.equal(
    runs("modified", { last: ["Reconcile", "Succeeded"], deleting: true }, {}),
    true,
    "both at once",
  );
  assert.equal(runs("deleted", { deleting: true }), false);
  const restoring: Shape = { requested: "restore", last: ["Restore", "Processing"] };
  assert.equal(runs("modified", restoring, { requested: "restore" }), false, "we have just taken it up");
  assert.equal(
    runs("modified", restoring, { requested: "migrate" }),
    true,
    "asked for something else meanwhile",
  );
  assert.equal(runs("modified", restoring, restoring), false, "a finalizer, a label");
  assert.equal(runs("modified", { ...restoring, generation: 2 }, restoring), true);
  assert.equal(runs("modified", { ...restoring, at: "later" }, restoring), true, "asked for again");
});

test("without the annotation changes of the spec count", () => {
  const done: Shape = { last: ["Reconcile", "Succeeded"] };
  assert.equal(runs("added", done, {}, true), true);
  assert.equal(runs("modified", { ...done, generation: 2 }, done, true), true);
  assert.equal(runs("modified", { last: ["Reconcile", "Processing"] }, done, true), false);
  assert.equal(runs("modified", { ...done, deleting: true }, done, true), true);
});

test("each operation is its line of steps", () => {
  const line = (...args: Parameters<typeof stepsOf>): string[] => stepsOf(...args).map((step) => step.name);
  assert.deepEqual(line("Reconcile", { force: false }), [
    "loadCluster",
    "stopIfIdle",
    "decodeConfig",
    "ensureCredentials",
    "deployBootstrapper",
    "deployShootObjects",
    "awaitHealthy",
    "reportStatus",
    "pruneCredentials",
  ]);
  assert.equal(stepsOf("Restore", { force: false }), stepsOf("Create", { force: true }));
  const gone = (awaited: string): string[] => [
    "deleteShootObjects",
    awaited,
    "deleteSeedObjects",
    "awaitSeedObjectsGone",
    "deleteShootAccess",
  ];
  const deleted = [...gone("awaitShootObjectsGoneUnlessAsleep"), "deleteCredentials"];
  assert.deepEqual(line("Delete", { force: false }), deleted);
  assert.deepEqual(line("Migrate", { force: false }), ["keepShootObjects", ...gone("awaitShootObjectsGone")]);
  const forced = deleted.filter((name) => name.startsWith("delete"));
  assert.deepEqual(line("Delete", { force: true }), forced);
});

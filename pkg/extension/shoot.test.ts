// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Cluster } from "#api/gardener";
import { hasFailed, isAsleep, isForceDeleted, readShoot } from "./shoot.ts";

const cluster = (
  shoot: object | null,
  more: object = {},
  annotations: Record<string, string> = {},
): Cluster =>
  ({
    metadata: { name: "shoot--foo--bar", annotations },
    spec: { seed: { spec: { ingress: { domain: "ingress.example.org" } } }, shoot, ...more },
  }) as Cluster;
const workers = { provider: { workers: [{ name: "a" }] } };

test("a Cluster in full is read in full", () => {
  const shoot = {
    spec: {
      ...workers,
      purpose: "testing",
      hibernation: { enabled: true },
      networking: { ipFamilies: ["IPv6", "IPv4"] },
    },
    status: {
      technicalID: "shoot--foo--bar",
      credentials: {
        rotation: {
          certificateAuthorities: { phase: "Preparing", lastInitiationTime: "2026-08-21T10:00:00Z" },
        },
      },
    },
  };
  const facts = readShoot(
    cluster(shoot, {}, { "generic-token-kubeconfig.secret.gardener.cloud/name": "generic-1" }),
  );
  assert.deepEqual(facts, {
    technicalID: "shoot--foo--bar",
    isHibernated: true,
    isMonitored: false,
    ingressDomain: "ingress.example.org",
    ipFamilies: ["IPv6", "IPv4"],
    genericKubeconfigSecretName: "generic-1",
    rotation: { phase: "Preparing", lastInitiationTimeMs: Date.UTC(2026, 7, 21, 10) },
  });
});

test("what is absent has its default", () => {
  assert.deepEqual(readShoot(cluster({ spec: workers })), {
    technicalID: "shoot--foo--bar",
    isHibernated: false,
    isMonitored: true,
    ingressDomain: "ingress.example.org",
    ipFamilies: ["IPv4"],
    genericKubeconfigSecretName: "generic-token-kubeconfig",
    rotation: {},
  });
  assert.equal(readShoot(cluster({ spec: workers }, { seed: { spec: {} } })).ingressDomain, undefined);
});

test("workerless and self-hosted Shoots are idle", () => {
  assert.equal(readShoot(cluster({ spec: { provider: { workers: [] } } })).idleReason, "workerless");
  assert.equal(readShoot(cluster({})).idleReason, "workerless");
  assert.equal(readShoot(cluster({ spec: workers }, { seed: null })).idleReason, "self-hosted");
  const controlPlane = { spec: { provider: { workers: [{ name: "cp", controlPlane: {} }] } } };
  assert.equal(readShoot(cluster(controlPlane)).idleReason, "self-hosted");
});

test("a Cluster that makes no sense is an error that names the field", () => {
  const invalid = (message: RegExp) => ({ code: "EXTENSION_CLUSTER_INVALID", message });
  assert.throws(() => readShoot(cluster(null)), invalid(/shoot--foo--bar: spec\.shoot is missing/));
  assert.throws(() => readShoot({ metadata: { name: "x" } }), invalid(/spec\.shoot/));
  assert.throws(
    () => readShoot(cluster({ spec: { provider: { workers: "many" } } })),
    invalid(/workers is not a list/),
  );
  const rotation = {
    status: { credentials: { rotation: { certificateAuthorities: { lastInitiationTime: "soon" } } } },
  };
  assert.throws(() => readShoot(cluster({ spec: workers, ...rotation })), invalid(/not a time/));
});

test("a Shoot sleeps from the wish on, but not while it is being deleted", () => {
  const hibernating = (enabled: boolean | undefined, metadata: object = {}): boolean =>
    isAsleep(cluster({ metadata, spec: { hibernation: { enabled } } }));
  assert.equal(hibernating(true), true);
  assert.equal(hibernating(false), false);
  assert.equal(hibernating(undefined), false);
  assert.equal(hibernating(true, { deletionTimestamp: "2026-08-21T10:00:00Z" }), false);
  assert.equal(isAsleep(cluster(null)), false);
  assert.equal(isAsleep(undefined), false);
});

test("failed and force-deleted Shoots are recognised", () => {
  assert.equal(hasFailed(cluster({ status: { lastOperation: { state: "Failed" } } })), true);
  assert.equal(hasFailed(cluster({ status: { lastOperation: { state: "Error" } } })), false);
  const confirmed = (value: string) =>
    cluster({ metadata: { annotations: { "confirmation.gardener.cloud/force-deletion": value } } });
  assert.equal(isForceDeleted(confirmed("true")), true);
  assert.equal(isForceDeleted(confirmed("1")), true);
  assert.equal(isForceDeleted(confirmed("yes")), false);
  assert.equal(isForceDeleted(undefined), false);
});

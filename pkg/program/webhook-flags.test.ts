// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { loadSettings } from "#config";
import { judgeWebhookFlags, placeWebhook, type WebhookFlags, webhookSettings } from "./webhook-flags.ts";

const NAME = "gardener-extension-x";
const read = (...argv: string[]): Promise<WebhookFlags> =>
  loadSettings<WebhookFlags>(
    { properties: webhookSettings(NAME), judge: judgeWebhookFlags },
    { argv, environment: {} },
  );

describe("the settings of a webhook", () => {
  it("are those of Gardener's library when nothing is said", async () => {
    assert.deepEqual(
      { ...(await read()) },
      {
        leaderElection: true,
        leaderElectionId: `${NAME}-leader-election`,
        webhookConfigMode: "service",
        webhookConfigServerHost: "",
        webhookConfigServerPort: 10250,
        webhookConfigServicePort: 443,
        metricsBindAddress: ":8080",
        healthBindAddress: ":8081",
        shutdownDelaySeconds: 5,
        logLevel: "INFO",
        logFormat: "json",
      },
    );
  });

  it("are all named when they are wrong", async () => {
    const wrong = [
      "--metrics-bind-address=here",
      "--health-bind-address=1",
      "--webhook-config-mode=url",
      "--webhook-config-url=http://a",
      "--webhook-config-service-port=0",
      "--shutdown-delay-seconds=301",
    ];
    await assert.rejects(read(...wrong), (error: { problems: readonly { path: string }[] } & Error) => {
      assert.deepEqual(error.problems.map(({ path }) => path).sort(), [
        "--health-bind-address",
        "--metrics-bind-address",
        "--shutdown-delay-seconds",
        "--webhook-config-service-port",
        "--webhook-config-url",
      ]);
      return true;
    });
  });
});

describe("the place of a webhook", () => {
  const target = (namespace: string, port = 443) => ({ mode: "service", namespace, name: NAME, port });

  it("is the pod's own namespace unless another is given", async () => {
    assert.deepEqual(placeWebhook(await read(), NAME, "own"), {
      namespace: "own",
      ownerNamespace: "own",
      leaseNamespace: "own",
      target: target("own"),
    });
    const elsewhere = ["--webhook-config-namespace=there", "--webhook-config-service-port=8443"];
    assert.deepEqual(placeWebhook(await read(...elsewhere), NAME, "own"), {
      namespace: "there",
      ownerNamespace: "there",
      leaseNamespace: "own",
      target: target("there", 8443),
    });
    const apart = ["--webhook-config-owner-namespace=owner", "--leader-election-namespace=lease"];
    assert.deepEqual(placeWebhook(await read(...apart), NAME, "own"), {
      namespace: "own",
      ownerNamespace: "owner",
      leaseNamespace: "lease",
      target: target("own"),
    });
  });

  it("is a URL where the API server cannot reach Services", async () => {
    const flags = await read("--webhook-config-mode=url", "--webhook-config-url=a.garden");
    assert.deepEqual(placeWebhook(flags, NAME, "own").target, { mode: "url", url: "a.garden" });
  });

  it("must be said outside a pod, and is then that of the Lease too", async () => {
    const flags = await read();
    assert.throws(() => placeWebhook(flags, NAME, undefined), {
      code: "CONFIG_INVALID",
      message: "--webhook-config-namespace: is required outside a pod",
    });
    const { leaseNamespace } = placeWebhook(await read("--webhook-config-namespace=x"), NAME, undefined);
    assert.equal(leaseNamespace, "x");
  });
});

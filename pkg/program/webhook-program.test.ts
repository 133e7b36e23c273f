// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import type { IncomingMessage } from "node:http";
import { request } from "node:https";
import { json } from "node:stream/consumers";
import { test } from "node:test";
import type { AdmissionReview, ServerCertificate } from "#http";
import { createKubeClient, parseKubeConfig } from "#kube";
import { silentLogger } from "#log";
import { createMetrics } from "#metrics";
import { openWebhookProgram } from "./webhook-program.ts";

const OPTIONS = {
  healthBindAddress: "127.0.0.1:0",
  metricsBindAddress: "127.0.0.1:0",
  webhookConfigServerHost: "127.0.0.1",
  webhookConfigServerPort: 0,
  leaderElection: false,
  leaderElectionId: "lease",
  leaderElectionNamespace: "garden",
  certificateIntervalMs: 1,
  shutdownDelaySeconds: 0,
};

/** Nothing listens there: without leader election nobody asks. */
async function parts() {
  const kubeconfig = JSON.stringify({
    "current-context": "c",
    contexts: [{ name: "c", context: { cluster: "c", user: "u" } }],
    clusters: [{ name: "c", cluster: { server: "http://127.0.0.1:9" } }],
    users: [{ name: "u", user: {} }],
  });
  const connection = await parseKubeConfig(kubeconfig, { directory: "/", source: "test" });
  return {
    logger: silentLogger,
    metrics: createMetrics(),
    client: createKubeClient(connection, { userAgent: "test" }),
    signal: new AbortController().signal,
  };
}

/** A key and a certificate for it, on one stream. */
function issueCertificate(): ServerCertificate {
  const subject = ["-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=webhook"];
  const pem = execFileSync("openssl", ["req", "-x509", ...subject, "-keyout", "-"], {
    stdio: ["ignore", "pipe", "ignore"],
    encoding: "utf8",
  });
  const [keyPem = "", rest = ""] = pem.split(/(?=-----BEGIN CERTIFICATE-----)/);
  return { certificatePem: rest, keyPem };
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
}

test("a program is ready once its webhook has a certificate, and no longer when it stops", async () => {
  const deps = await parts();
  await using _client = deps.client;
  const certificate = issueCertificate();
  const states: (string | undefined)[] = [];
  const note = async (): Promise<void> => {
    states.push(/^registry_spegel_ready (\d)$/m.exec(await deps.metrics.render())?.[1]);
  };
  let tries = 0;
  const program = await openWebhookProgram(
    {
      ...deps,
      webhook: {
        path: "/webhook",
        webhook: { review: () => Promise.reject(new Error("nobody asks")) },
        certificates: {
          async load(): Promise<ServerCertificate> {
            tries++;
            if (tries <= 2) {
              await note();
              throw new Error("no Secret yet");
            }
            return certificate;
          },
        },
      },
      async lead(signal) {
        await aborted(signal).catch(() => {});
        await note();
      },
    },
    OPTIONS,
  );
  await note();
  assert.match(program.webhookAddress ?? "", /^127\.0\.0\.1:\d+$/);
  await program[Symbol.asyncDispose]();
  await program.finished;
  assert.deepEqual(states, ["0", "0", "1", "0"]);
});

test("a program counts how long its webhook takes to answer", async () => {
  const deps = await parts();
  await using _client = deps.client;
  const certificate = issueCertificate();
  const review = async (): Promise<AdmissionReview> => ({
    apiVersion: "admission.k8s.io/v1",
    kind: "AdmissionReview",
    response: { uid: "u", allowed: true },
  });
  const webhook = { path: "/webhook", webhook: { review }, certificates: { load: async () => certificate } };
  await using program = await openWebhookProgram({ ...deps, webhook, lead: aborted }, OPTIONS);
  const [host, port] = program.webhookAddress?.split(":") ?? [];
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    const init = { host, port, path: "/webhook", method: "POST", ca: certificate.certificatePem };
    request({ ...init, servername: "webhook", checkServerIdentity: () => undefined }, resolve)
      .on("error", reject)
      .end("{}");
  });
  assert.deepEqual(await json(answer), await review());
  const rendered = await deps.metrics.render();
  assert.match(rendered, /^registry_spegel_webhook_duration_seconds_count 1$/m);
  assert.match(rendered, /^registry_spegel_webhook_duration_seconds_bucket\{le="10"\} 1$/m);
});

test("a program without a webhook is ready at once", async () => {
  const deps = await parts();
  await using _client = deps.client;
  await using program = await openWebhookProgram({ ...deps, lead: aborted }, OPTIONS);
  assert.equal(program.webhookAddress, undefined);
  assert.match(await deps.metrics.render(), /^registry_spegel_ready 1$/m);
});

test("a leader that cannot go on ends the program with its reason, one that was stopped does not", async () => {
  const deps = await parts();
  await using _client = deps.client;
  const reason = new Error("broken");
  await using failing = await openWebhookProgram(
    { ...deps, lead: () => Promise.reject(reason) },
    { ...OPTIONS },
  );
  await assert.rejects(failing.finished, reason);
  const stop = new AbortController();
  await using stopped = await openWebhookProgram(
    { ...deps, metrics: createMetrics(), signal: stop.signal, lead: aborted },
    OPTIONS,
  );
  stop.abort();
  await stopped.finished;
});

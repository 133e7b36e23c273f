// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { inspect } from "node:util";
import { createLogger } from "#log";
import { createMetrics } from "#metrics";
import { eventually } from "#routing/testing";
import { IDENTITY_FILE } from "./identity.ts";
import {
  createStaticBootstrap,
  createSwarmMetrics,
  openSwarm,
  type Swarm,
  serveBootstrapId,
} from "./index.ts";
import { addressOf, find, openNode, testSignal as signal } from "./testing/nodes.ts";

describe("a private key", () => {
  let directory: string;
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), "secrecy-"));
  });
  after(() => rm(directory, { recursive: true }));

  /** Every form in which the key could be written down: whole or its secret half. */
  function forms(pem: string, seed: Buffer): string[] {
    const line = pem.split("\n").find((each) => each !== "" && !each.startsWith("-----")) ?? "";
    const encoded = (["base64", "base64url", "hex", "latin1"] as const).map((encoding) =>
      seed.toString(encoding),
    );
    // A part is enough to look for: what is cut off at its end is told as well.
    return [
      ...encoded.map((text) => text.slice(0, 20)),
      line.slice(0, 60),
      [...seed.subarray(0, 8)].join(","),
    ];
  }

  function assertUntold(text: string, unwanted: readonly string[]): void {
    // Bytes as JSON (`{"0":1,"1":2}`), as inspect shows them (`[ 1, 2 ]`, `<Buffer 01 02>`), or as text.
    const plain = text.replaceAll(/\\?"\d+\\?":/g, "").replaceAll(/\s+/g, "");
    for (const form of unwanted) assert.ok(!text.includes(form) && !plain.includes(form), `${form} was told`);
  }

  function createKey(): { readonly pem: string; readonly forms: readonly string[] } {
    const { privateKey } = generateKeyPairSync("ed25519");
    const pem = privateKey.export({ type: "pkcs8", format: "pem" }) as string;
    const seed = Buffer.from(privateKey.export({ format: "jwk" }).d as string, "base64url");
    return { pem, forms: forms(pem, seed) };
  }

  async function openTalkative(
    path: string,
    lines: string[],
    neighbour: string,
  ): Promise<[Swarm, () => Promise<string>]> {
    const metrics = createMetrics();
    const swarm = await openSwarm(
      {
        logger: createLogger({ level: "DEBUG", sink: { write: (line) => void lines.push(line) } }),
        metrics: createSwarmMetrics(metrics),
        bootstrap: [
          createStaticBootstrap({ addresses: [neighbour], defaultPort: 1 }),
          // One that fails, for the log of errors.
          { name: "failing", peers: () => Promise.reject(new Error("no answer")) },
        ],
      },
      { routerAddress: "127.0.0.2:0", dataDirectory: path, signal },
    );
    return [swarm, () => metrics.render()];
  }

  it("is in no line of the log, no metric, no answer at /id and no object that is handed out", async () => {
    const key = createKey();
    await writeFile(join(directory, IDENTITY_FILE), key.pem);
    const lines: string[] = [];
    await using other = await openNode("127.0.0.3:0");
    const [node, metrics] = await openTalkative(directory, lines, addressOf(other));
    let told = "";
    {
      await using _closing = node;
      await node.advertise(["key"], { signal });
      await eventually(
        () => find(other, "key"),
        (peers) => peers.length === 1,
      );
      await find(node, "absent");
      await using served = await serveBootstrapId(
        { peerId: node.peerId, addresses: () => node.addresses() },
        { host: "127.0.0.1", port: 0 },
      );
      told += await (await fetch(`http://127.0.0.1:${served.port}/id`)).text();
      told += await metrics();
      told += inspect(node, { depth: 8, showHidden: true });
    }
    told += lines.join("");
    assert.ok(lines.length > 1 && told.includes(node.peerId), "nothing was told at all");
    assertUntold(told, key.forms);
  });

  it("is not quoted when its file is damaged", async () => {
    for (const damage of [
      (pem: string) => pem.replace("-----END PRIVATE KEY-----", ""),
      (pem: string) => pem.replaceAll("PRIVATE KEY", "EC PRIVATE KEY"),
      (pem: string) => pem.replace("MC4CAQAw", "MC4CAQAx"),
      (pem: string) => `${pem}${"x".repeat(20_000)}`,
    ]) {
      const key = createKey();
      await writeFile(join(directory, IDENTITY_FILE), damage(key.pem));
      const lines: string[] = [];
      await using other = await openNode("127.0.0.3:0");
      const [node] = await openTalkative(directory, lines, addressOf(other));
      await node[Symbol.asyncDispose]();
      assert.ok(
        lines.some((line) => /identity file is damaged/.test(line)),
        "nothing was told at all",
      );
      assertUntold(lines.join(""), key.forms);
    }
  });
});

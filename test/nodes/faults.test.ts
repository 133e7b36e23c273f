// SPDX-License-Identifier: Apache-2.0
/** Something breaks while a real containerd pulls a large layer from a peer. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { Rig } from "../kit/node-rig/index.ts";
import { type FaultScenario, faultScenarios, playFault, shapeLinks } from "./fault-scenarios.ts";
import { openNodes } from "./testing.ts";

const LAYER_MIB = 48;
const signal = AbortSignal.timeout(290_000);

describe("a pull during which something breaks", () => {
  let rig: Rig;
  before(async () => {
    rig = await openNodes(3, { signal });
    await shapeLinks(rig);
  });
  after(() => rig?.[Symbol.asyncDispose]());

  for (const [index, scenario] of faultScenarios({ watchdogMs: 0 }).entries()) {
    // Every generation of containerd has its turn.
    const puller = index % 3;
    it(`succeeds: ${scenario.name}, ${scenario.holders === 1 ? "the only holder" : "another one there"}`, () =>
      check(scenario, `fault-${index}`, puller));
  }

  async function check(scenario: FaultScenario, seed: string, puller: number): Promise<void> {
    const result = await playFault(rig, scenario, { seed, layerMib: LAYER_MIB, puller, signal });
    const { layerBytes, upstreamBytes, receivedBytes } = result;
    assert.equal(result.calls, scenario.losesFirstPull ? 2 : 1, result.error ?? "calls of PullImage");
    if (scenario.upstream === "nothing") assert.equal(upstreamBytes, 0);
    if (scenario.upstream === "rest")
      assert.ok(
        upstreamBytes <= layerBytes - receivedBytes,
        `upstream sent ${upstreamBytes}, ${receivedBytes} of ${layerBytes} were there`,
      );
    if (scenario.upstream === "whole") assert.equal(upstreamBytes, layerBytes);
    assert.equal(result.finalDigest, result.layerDigest);
  }
});

// SPDX-License-Identifier: Apache-2.0
import type { RawClient } from "../kit/kube-parts/index.ts";

const CREATED_AT_ONCE = 32;
/** As many as kubelet reports; they make up most of a Node. */
const IMAGE_COUNT = 50;

/** Creates Nodes that are ready, each with the addresses and images of a real one. */
export async function createNodes(shoot: RawClient, count: number): Promise<void> {
  let next = 0;
  const create = async (): Promise<void> => {
    for (let index = next++; index < count; index = next++) {
      const { status } = await shoot.call("POST", "/api/v1/nodes?fieldValidation=Strict", {
        body: node(index),
      });
      if (status !== 201) throw new Error(`Node ${index} was answered with ${status}`);
    }
  };
  await Promise.all(Array.from({ length: CREATED_AT_ONCE }, create));
}

function node(index: number): object {
  const name = `shoot--foo--bar-worker-z1-${String(index).padStart(5, "0")}`;
  return {
    apiVersion: "v1",
    kind: "Node",
    metadata: { name },
    status: {
      addresses: [
        { type: "InternalIP", address: `10.250.${index >> 8}.${index & 255}` },
        { type: "Hostname", address: name },
      ],
      conditions: [{ type: "Ready", status: "True", reason: "KubeletReady", message: "simulated" }],
      images: Array.from({ length: IMAGE_COUNT }, (_, image) => ({
        names: [`registry.example.org/project/component-${image}@sha256:${"0".repeat(64)}`],
        sizeBytes: 10_000_000 + image,
      })),
    },
  };
}

// SPDX-License-Identifier: Apache-2.0
/** A cluster whose nodes all have addresses of one IPv6 /56, where Go's limits let eight connections in. */
import { execFileSync } from "node:child_process";
import { after, before, describe, it } from "node:test";
import { eventually } from "#routing/testing";
import { type Group, startGroup } from "../bench/swarm-group.ts";
import { buildGoPeer, skipReason } from "./go-peer.ts";

const NODES = 14;
const GO_NODES = 2;
const NAMESPACE = `swarm-${process.pid}`;
const ip = (...args: string[]): void =>
  void execFileSync("ip", args, { stdio: ["ignore", "ignore", "pipe"] });
const addressOf = (node: number): string => `fd00:5:6:${(0x700 + node).toString(16)}::1`;

function reasonToSkip(): string | false {
  if (process.getuid?.() !== 0) return "needs root for a network namespace of its own";
  return skipReason();
}

describe("a cluster within one IPv6 /56", { skip: reasonToSkip() }, () => {
  const stack = new AsyncDisposableStack();
  let ours: Group;
  let go: Group;

  before(
    async () => {
      const executable = await buildGoPeer();
      ip("netns", "add", NAMESPACE);
      stack.defer(() => ip("netns", "delete", NAMESPACE));
      ip("-n", NAMESPACE, "link", "set", "lo", "up");
      for (let node = 0; node < NODES + GO_NODES; node++) {
        ip("-n", NAMESPACE, "addr", "add", `${addressOf(node)}/128`, "dev", "lo", "nodad");
      }
      const inside = ["ip", "netns", "exec", NAMESPACE];
      const ourAddresses = Array.from({ length: NODES }, (_, node) => addressOf(node));
      const goAddresses = Array.from(
        { length: GO_NODES },
        (_, node) => `/ip6/${addressOf(NODES + node)}/tcp/0`,
      );
      ours = stack.use(
        await startGroup([
          ...inside,
          process.execPath,
          "--disable-warning=ExperimentalWarning",
          "test/bench/swarm-worker.ts",
          "ours",
          ...ourAddresses,
        ]),
      );
      go = stack.use(await startGroup([...inside, executable, `-group=${goAddresses.join(",")}`]));
      const [entry] = ours.addresses as [string];
      await go.request({ op: "join", addrs: [entry] });
      await ours.request({ op: "join", addrs: [entry] });
    },
    { timeout: 900_000 },
  );
  after(() => stack.disposeAsync());

  it("forms with more than nine nodes: each of ours finds what every other one has", async () => {
    for (let holder = 0; holder < NODES; holder++) {
      const keys = [`key of ${holder}`];
      await ours.request({ op: "provide", node: holder, keys });
      await ours.request({ op: "await", node: (holder + 5) % NODES, keys });
    }
    const keys = Array.from({ length: NODES }, (_, holder) => `key of ${holder}`);
    for (let asker = 0; asker < NODES; asker++) {
      const others = keys.filter((_, holder) => holder !== asker);
      await eventually(
        () => ours.request<(number | null)[]>({ op: "find", node: asker, keys: others }),
        (hits) => hits.every((ms) => ms !== null),
      );
    }
  });

  it("takes in Go nodes: each finds what ours have, and ours find what they have", async () => {
    await ours.request({ op: "provide", node: 3, keys: ["key for Go"] });
    for (let node = 0; node < GO_NODES; node++) {
      await go.request({ op: "await", node, keys: ["key for Go"] });
      await go.request({ op: "provide", node, keys: [`key of Go ${node}`] });
      await ours.request({ op: "await", node: 9, keys: [`key of Go ${node}`] });
    }
  });
});

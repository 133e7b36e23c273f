// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import fc from "fast-check";
import type { BootstrapNodeList } from "#api/nodelist";
import type { ClientCertificate, HTTPAnswer } from "#http";
import { createLogger, silentLogger } from "#log";
import { createMetrics } from "#metrics";
import {
  createNodeListMetrics,
  createNodeListRoute,
  type NodeAddressEntry,
  type NodeListOptions,
  type NodeSource,
  openNodesFile,
  parseNodesFile,
} from "./index.ts";

const CLIENT: ClientCertificate = { commonName: "node", extendedKeyUsages: ["1.3.6.1.5.5.7.3.2"] };

function node(name: string, change: Partial<NodeAddressEntry> = {}): NodeAddressEntry {
  const number = Number(name.replace(/\D/g, ""));
  const addresses = [`10.0.${number >> 8}.${number & 255}`];
  return { name, addresses, isReady: true, isTerminating: false, createdAtMs: number, ...change };
}

/** A route over these nodes, as a function from certificate to answer. */
function serve(
  nodes: readonly NodeAddressEntry[] | undefined,
  options: Partial<NodeListOptions> = {},
  metrics = createMetrics(),
): (clientCertificate?: ClientCertificate) => HTTPAnswer {
  const source: NodeSource = { nodes: () => nodes };
  const route = createNodeListRoute(
    { source, metrics: createNodeListMetrics(metrics, source) },
    { families: ["IPv4"], ...options },
  );
  const { signal } = new AbortController();
  return (clientCertificate = CLIENT) =>
    route.handle({ body: new Uint8Array(), clientCertificate, signal }) as HTTPAnswer;
}

function listOf(answer: HTTPAnswer): BootstrapNodeList {
  assert.equal(answer.status, 200);
  assert.equal(answer.contentType, "application/json");
  return JSON.parse(answer.body) as BootstrapNodeList;
}

const addressesOf = (answer: HTTPAnswer): string[][] => listOf(answer).map((entry) => [...entry.Addrs]);
const many = (count: number, change: Partial<NodeAddressEntry> = {}): NodeAddressEntry[] =>
  Array.from({ length: count }, (_, index) => node(`n${index + 1}`, change));

describe("the node list", () => {
  it("has Spegel's form, without ids and ports", () => {
    assert.equal(serve([node("n1")])().body, '[{"ID":"","Addrs":["/ip4/10.0.0.1"]}]');
  });

  it("is empty for a cluster without nodes, and 503 before they were seen", () => {
    assert.equal(serve([])().body, "[]");
    assert.equal(serve(undefined)().status, 503);
  });

  it("is refused without a certificate for client authentication", () => {
    const route = serve([node("n1")]);
    const serverOnly = { commonName: "server", extendedKeyUsages: ["1.3.6.1.5.5.7.3.1"] };
    for (const certificate of [serverOnly, { commonName: "ca", extendedKeyUsages: [] }]) {
      assert.equal(route(certificate).status, 403);
    }
    assert.equal(route(CLIENT).status, 200);
  });

  it("names ready nodes before others and old ones before new ones", () => {
    const nodes = [
      node("n4", { isReady: false, createdAtMs: 1 }),
      node("n3", { createdAtMs: 3 }),
      node("n2", { createdAtMs: 2 }),
      node("n1", { createdAtMs: 2 }),
    ];
    assert.deepEqual(addressesOf(serve(nodes)()), [
      ["/ip4/10.0.0.1"],
      ["/ip4/10.0.0.2"],
      ["/ip4/10.0.0.3"],
      ["/ip4/10.0.0.4"],
    ]);
  });

  it("still names nodes when none of them is ready, as in a cluster that is just starting", () => {
    assert.equal(listOf(serve(many(2, { isReady: false }))()).length, 2);
  });

  it("leaves out nodes that go and nodes that nobody can dial", () => {
    const nodes = [
      node("n1", { isTerminating: true }),
      node("n2", { addresses: [] }),
      node("n3", { addresses: ["", "node.example", "10.0.0.300", "169.254.20.10", "0.0.0.0", "224.0.0.1"] }),
      node("n4", { addresses: ["fd00::4"] }),
      node("n5"),
    ];
    assert.deepEqual(addressesOf(serve(nodes)()), [["/ip4/10.0.0.5"]]);
  });

  it("gives both families of a node in one element, the preferred one first", () => {
    const addresses = ["10.0.0.1", "fd00::1", "fe80::1", "fe80::1%eth0", "10.0.0.2"];
    const nodes = [node("n1", { addresses })];
    assert.deepEqual(addressesOf(serve(nodes, { families: ["IPv6", "IPv4"] })()), [
      ["/ip6/fd00::1", "/ip4/10.0.0.1", "/ip4/10.0.0.2"],
    ]);
    assert.deepEqual(addressesOf(serve(nodes, { families: ["IPv4", "IPv6"] })()), [
      ["/ip4/10.0.0.1", "/ip4/10.0.0.2", "/ip6/fd00::1"],
    ]);
    assert.deepEqual(addressesOf(serve(nodes, { families: ["IPv6"] })()), [["/ip6/fd00::1"]]);
  });

  it("is bounded, and begins with another node each time so that nobody carries all new ones", () => {
    const route = serve(many(40), { limit: 10 });
    const answers = Array.from({ length: 10 }, () => addressesOf(route()).flat());
    assert.equal(new Set(answers.map((list) => list[0])).size, 10);
    const set = answers[0]?.toSorted();
    for (const list of answers) assert.deepEqual(list.toSorted(), set);
    assert.deepEqual(
      set,
      many(10)
        .map((each) => `/ip4/${each.addresses[0]}`)
        .toSorted(),
    );
  });

  it("keeps its bounds and its order for whatever nodes", () => {
    const entry = fc.record({
      name: fc.string(),
      addresses: fc.array(fc.oneof(fc.ipV4(), fc.ipV6(), fc.string()), { maxLength: 20 }),
      isReady: fc.boolean(),
      isTerminating: fc.boolean(),
      createdAtMs: fc.integer(),
    });
    fc.assert(
      fc.property(fc.array(entry), fc.integer({ min: 1, max: 12 }), fc.nat(50), (nodes, limit, turns) => {
        const route = serve(nodes, { limit, families: ["IPv4", "IPv6"] });
        for (let turn = 0; turn < turns % 5; turn++) route();
        const list = listOf(route());
        assert.ok(list.length <= limit);
        for (const { Addrs } of list) {
          assert.ok(Addrs.length > 0 && Addrs.length <= 8);
          for (const address of Addrs) assert.match(address, /^\/ip[46]\/[0-9a-f.:]+$/i);
        }
      }),
    );
  });

  it("counts its answers and its nodes", async () => {
    const metrics = createMetrics();
    const route = serve(many(3), {}, metrics);
    route();
    route({ commonName: "x", extendedKeyUsages: [] });
    const text = await metrics.render();
    assert.match(text, /spegel_bootstrapper_requests_total\{code="200"\} 1\n/);
    assert.match(text, /spegel_bootstrapper_requests_total\{code="403"\} 1\n/);
    assert.match(text, /spegel_bootstrapper_nodes 3\n/);
  });
});

describe("parseNodesFile", () => {
  const parsed = (text: string): string[] =>
    parseNodesFile(text, "nodes.yaml").map((each) => each.addresses.join());

  it("reads addresses and nodes, as YAML or as JSON", () => {
    assert.deepEqual(parsed("- 10.0.0.1\n- name: b\n  addresses: [10.0.0.2, 'fd00::2']\n"), [
      "10.0.0.1",
      "10.0.0.2,fd00::2",
    ]);
    assert.deepEqual(parsed('["10.0.0.1",{"addresses":["fd00::1"]}]'), ["10.0.0.1", "fd00::1"]);
    assert.deepEqual(parsed("[]"), []);
  });

  it("names what is wrong with a file", () => {
    const cases: [string, string][] = [
      ["", "nodes.yaml is not a list of nodes"],
      ["nodes: []", "nodes.yaml is not a list of nodes"],
      ["- 5", "nodes.yaml: [0] is neither an address nor an object"],
      ["- null", "nodes.yaml: [0] is neither an address nor an object"],
      ["- node.example", "nodes.yaml: [0].addresses[0] is not an IP address"],
      ["- 10.0.0.1\n- {addresses: []}", "nodes.yaml: [1].addresses is not a list of 1 to 16 IP addresses"],
      ["- {addresses: [10.0.0.1], port: 1}", "nodes.yaml: [0].port is not a known field"],
      ["- {name: 1, addresses: [10.0.0.1]}", "nodes.yaml: [0].name is not a string"],
      [`[${'"10.0.0.1",'.repeat(10_000)}"10.0.0.1"]`, "nodes.yaml has more than 10000 nodes"],
    ];
    for (const [text, message] of cases) {
      assert.throws(() => parsed(text), { code: "NODELIST_FILE_INVALID", message });
    }
    for (const text of ["- [", "a: &a [*a, *a]", "- &x 10.0.0.1\n- *x\n", "\u0000"]) {
      assert.throws(() => parsed(text), { code: "NODELIST_FILE_INVALID" });
    }
  });

  it("never fails in a way it has no code for", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
        try {
          parsed(text);
        } catch (error) {
          assert.equal((error as { code?: string }).code, "NODELIST_FILE_INVALID", String(error));
        }
      }),
    );
  });
});

describe("openNodesFile", () => {
  let directory: string;
  let stop: AbortController;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), "nodes-"));
    stop = new AbortController();
  });

  afterEach(async () => {
    stop.abort();
    await rm(directory, { recursive: true });
  });

  /** A logger, and a promise for the next line with this message. */
  function listen(): {
    readonly logger: ReturnType<typeof createLogger>;
    readonly next: (message: string) => Promise<string>;
  } {
    const waiting = new Map<string, (line: string) => void>();
    const sink = {
      write(line: string): void {
        waiting.get((JSON.parse(line) as { msg: string }).msg)?.(line);
      },
    };
    return {
      logger: createLogger({ level: "INFO", sink }),
      next: (message) => new Promise((resolve) => waiting.set(message, resolve)),
    };
  }

  it("follows the file, also through a swapped link, and keeps the last good list", async () => {
    const { logger, next } = listen();
    await mkdir(join(directory, "..1"));
    await writeFile(join(directory, "..1", "nodes.yaml"), "- 10.0.0.1\n");
    await symlink("..1", join(directory, "..data"));
    await symlink("..data/nodes.yaml", join(directory, "nodes.yaml"));
    const options = { path: join(directory, "nodes.yaml"), pollMs: 3_600_000, signal: stop.signal };
    await using source = await openNodesFile({ logger }, options);
    const addresses = (): string => (source.nodes() ?? []).map((each) => each.addresses.join()).join(" ");
    assert.equal(addresses(), "10.0.0.1");
    assert.equal(source.nodes(), source.nodes());

    const changed = next("nodes file read again");
    await mkdir(join(directory, "..2"));
    await writeFile(join(directory, "..2", "nodes.yaml"), "- 10.0.0.2\n- 10.0.0.3\n");
    await symlink("..2", join(directory, "..tmp"));
    await rename(join(directory, "..tmp"), join(directory, "..data"));
    await changed;
    assert.equal(addresses(), "10.0.0.2 10.0.0.3");

    const refused = next("nodes file not read, the last list stays");
    await rm(join(directory, "nodes.yaml"));
    await writeFile(join(directory, "nodes.yaml.new"), "nodes: wrong\n");
    await rename(join(directory, "nodes.yaml.new"), join(directory, "nodes.yaml"));
    await refused;
    assert.equal(addresses(), "10.0.0.2 10.0.0.3");
  });

  it("fails at once for a file that is absent, too large or wrong", async () => {
    const open = (name: string): Promise<unknown> =>
      openNodesFile({ logger: silentLogger }, { path: join(directory, name), signal: stop.signal });
    await assert.rejects(open("absent"), { code: "NODELIST_FILE_INVALID" });
    await writeFile(join(directory, "large"), "#".repeat(1024 * 1024 + 1));
    await assert.rejects(open("large"), (error: Error) => /cannot be read/.test(error.message));
    await writeFile(join(directory, "wrong"), "x");
    await assert.rejects(open("wrong"), /is not a list of nodes/);
  });
});

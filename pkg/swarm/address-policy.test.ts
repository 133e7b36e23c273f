// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import type { NetworkInterfaceInfo } from "node:os";
import { describe, it } from "node:test";
import { hasCode } from "#errors";
import { type AddressPolicy, createAddressPolicy, parseRouterAddress } from "./address-policy.ts";

const at = (ip: string, port = 5001): { ip: string; port: number } => ({ ip, port });

function policyOf(routerAddress: string, interfaces: Record<string, string[]>): AddressPolicy {
  const known = Object.fromEntries(
    Object.entries(interfaces).map(([name, ips]) => [
      name,
      ips.map((address) => ({ address }) as NetworkInterfaceInfo),
    ]),
  );
  return createAddressPolicy({ interfaces: () => known, now: () => 0 }, parseRouterAddress(routerAddress));
}

const NODE = {
  lo: ["127.0.0.1", "::1"],
  eth0: ["10.250.0.4", "fe80::42"],
  docker0: ["172.17.0.1"],
  nodelocaldns: ["169.254.20.10"],
  "kube-ipvs0": ["100.64.0.1"],
};

describe("a router address", () => {
  it("is every address when the host is empty, unspecified or a name", () => {
    for (const text of [":5001", "0.0.0.0:5001", "[::]:5001", "localhost:5001"]) {
      assert.deepEqual(parseRouterAddress(text), { ip: undefined, port: 5001 }, text);
    }
  });

  it("is one address when an IP address is given", () => {
    assert.deepEqual(parseRouterAddress("127.0.0.1:0"), { ip: "127.0.0.1", port: 0 });
    assert.deepEqual(parseRouterAddress("[2001:DB8::1]:15501"), { ip: "2001:db8::1", port: 15501 });
  });

  it("is refused without a port between 0 and 65535", () => {
    for (const text of [
      "",
      "5001",
      "10.0.0.1",
      "10.0.0.1:",
      ":65536",
      ":-1",
      "::1:5001",
      ":5001x",
      "a:b:1",
      ":123456789",
    ]) {
      assert.throws(
        () => parseRouterAddress(text),
        (error) => hasCode(error, "SWARM_ADDRESS_INVALID"),
        text,
      );
    }
  });
});

describe("an address policy", () => {
  it("announces what another node can use: no loopback, no link-local, no bridge that every node has", () => {
    const listening = Object.values(NODE)
      .flat()
      .map((ip) => at(ip));
    assert.deepEqual(policyOf(":5001", NODE).announced(listening), [at("10.250.0.4")]);
  });

  it("announces addresses of bridges when there are no others", () => {
    assert.deepEqual(
      policyOf(":5001", { docker0: ["172.17.0.1"] }).announced([at("172.17.0.1"), at("127.0.0.1")]),
      [at("172.17.0.1")],
    );
  });

  it("announces the one address that it listens on, even loopback", () => {
    assert.deepEqual(policyOf("127.0.0.2:0", NODE).announced([at("127.0.0.2", 40000)]), [
      at("127.0.0.2", 40000),
    ]);
  });

  it("takes every address of an interface as its own, because a connection to it would end here", () => {
    const policy = policyOf(":5001", NODE);
    for (const ip of ["10.250.0.4", "172.17.0.1", "100.64.0.1", "127.0.0.1"])
      assert.ok(policy.isOwn(at(ip, 1)), ip);
    assert.ok(!policy.isOwn(at("10.250.0.5")));
  });

  it("takes only its explicit address as its own", () => {
    const policy = policyOf("10.250.0.4:5001", NODE);
    assert.ok(policy.isOwn(at("10.250.0.4", 1)));
    assert.ok(!policy.isOwn(at("172.17.0.1")));
  });

  it("lets two nodes share a loopback address, told apart by the port", () => {
    const policy = policyOf("127.0.0.1:0", NODE);
    policy.announced([at("127.0.0.1", 40000)]);
    assert.ok(policy.isOwn(at("127.0.0.1", 40000)));
    assert.ok(!policy.isOwn(at("127.0.0.1", 40001)));
  });

  it("believes loopback addresses of others only when it is on loopback itself", () => {
    assert.ok(!policyOf(":5001", NODE).isUsable(at("127.0.0.3")));
    assert.ok(policyOf("127.0.0.2:0", NODE).isUsable(at("127.0.0.3")));
    for (const ip of ["0.0.0.0", "169.254.1.1", "fe80::1", "224.0.0.1"])
      assert.ok(!policyOf("127.0.0.2:0", NODE).isUsable(at(ip)), ip);
  });

  it("sees a new interface after a while", () => {
    let nowMs = 0;
    let address = "10.0.0.1";
    const policy = createAddressPolicy(
      { interfaces: () => ({ eth0: [{ address } as NetworkInterfaceInfo] }), now: () => nowMs },
      parseRouterAddress(":5001"),
    );
    assert.ok(policy.isOwn(at("10.0.0.1")));
    address = "10.0.0.2";
    nowMs = 10_000;
    assert.ok(policy.isOwn(at("10.0.0.2")) && !policy.isOwn(at("10.0.0.1")));
  });
});

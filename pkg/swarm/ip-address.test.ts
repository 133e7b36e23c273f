// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { isIP, SocketAddress } from "node:net";
import { describe, it } from "node:test";
import { multiaddr } from "@multiformats/multiaddr";
import fc from "fast-check";
import {
  canonicalIp,
  encodeEndpoint,
  formatEndpoint,
  formatIp,
  isLoopback,
  isUnroutable,
  parseEndpoint,
  parseIp,
} from "./ip-address.ts";

const ids = "12D3KooWGRUfp5aa7gKGYFf4dXLnNFDRSr6NqxdKPXj9AnRnLGqZ";
const ipBytes = fc.oneof(
  fc.uint8Array({ minLength: 4, maxLength: 4 }),
  fc.uint8Array({ minLength: 16, maxLength: 16 }),
  sparse(),
);

/** IPv6 addresses with many zero groups, where the short form has its difficulties. */
function sparse(): fc.Arbitrary<Uint8Array> {
  return fc
    .array(fc.constantFrom(0, 0, 0, 1, 0x100, 0xffff), { minLength: 8, maxLength: 8 })
    .map((groups) => Uint8Array.from(groups.flatMap((group) => [group >> 8, group & 0xff])));
}

describe("IP addresses", () => {
  it("are written as the operating system writes them", () => {
    fc.assert(
      fc.property(ipBytes, (bytes) => {
        const text = formatIp(bytes);
        // The system still writes the deprecated IPv4-compatible addresses (RFC 4291, 2.5.5.1) with dots.
        fc.pre(
          bytes.length === 4 ||
            bytes.subarray(0, 12).some((byte) => byte !== 0) ||
            bytes.subarray(12, 14).every((byte) => byte === 0),
        );
        assert.notEqual(isIP(text), 0, text);
        if (isIP(text) === 6)
          assert.equal(new SocketAddress({ address: text, family: "ipv6" }).address, text);
      }),
    );
  });

  it("survive the way into text and back", () => {
    fc.assert(
      fc.property(ipBytes, (bytes) => assert.equal(formatIp(parseIp(formatIp(bytes))), formatIp(bytes))),
    );
  });

  it("have one text form each", () => {
    for (const [text, canonical] of [
      ["2001:DB8:0:0:0:0:0:1", "2001:db8::1"],
      ["::ffff:10.0.0.1", "10.0.0.1"],
      ["fe80::1%eth0", "fe80::1"],
      ["::", "::"],
      ["64:ff9b::192.0.2.33", "64:ff9b::c000:221"],
    ] as const) {
      assert.equal(canonicalIp(text), canonical);
    }
  });

  it("are known as loopback, link-local, multicast and unspecified", () => {
    for (const ip of ["127.0.0.1", "127.9.9.9", "::1"]) assert.ok(isLoopback(ip), ip);
    for (const ip of ["0.0.0.0", "169.254.20.10", "224.0.0.1", "255.255.255.255", "::", "fe80::1", "ff02::1"])
      assert.ok(isUnroutable(ip), ip);
    for (const ip of ["10.0.0.1", "192.168.0.1", "8.8.8.8", "fd00::1", "2001:db8::1"])
      assert.ok(!isUnroutable(ip) && !isLoopback(ip), ip);
  });
});

describe("endpoints", () => {
  it("are read from binary multiaddrs as libp2p writes them, with and without a peer id", () => {
    fc.assert(
      fc.property(ipBytes, fc.integer({ min: 1, max: 65535 }), fc.boolean(), (bytes, port, withId) => {
        const endpoint = { ip: formatIp(bytes), port };
        const text = formatEndpoint(endpoint);
        assert.deepEqual(parseEndpoint(multiaddr(withId ? `${text}/p2p/${ids}` : text).bytes), endpoint);
        assert.deepEqual(new Uint8Array(encodeEndpoint(endpoint)), multiaddr(text).bytes);
      }),
    );
  });

  it("are nothing but an IP address and a TCP port", () => {
    for (const text of [
      "/dns4/example.org/tcp/5001",
      "/ip4/10.0.0.1/udp/5001/quic-v1",
      "/ip4/10.0.0.1",
      "/ip4/10.0.0.1/tcp/0",
      "/ip4/10.0.0.1/tcp/5001/ws",
      `/ip4/10.0.0.1/tcp/5001/p2p/${ids}/p2p-circuit`,
      "/ip6zone/eth0/ip6/fe80::1/tcp/5001",
    ]) {
      assert.equal(parseEndpoint(multiaddr(text).bytes), undefined, text);
    }
  });

  it("are undefined for any other bytes, and never an error", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        const endpoint = parseEndpoint(bytes);
        if (endpoint !== undefined) assert.notEqual(isIP(endpoint.ip), 0);
      }),
    );
  });
});

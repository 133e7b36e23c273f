// SPDX-License-Identifier: Apache-2.0
/**
 * IP addresses as they stand in binary multiaddrs, and what kind they are.
 * https://github.com/multiformats/multiaddr/blob/master/protocols.csv
 */
import { BlockList, isIP } from "node:net";

const CODE_IP4 = 0x04;
const CODE_TCP = 0x06;
const CODE_IP6 = 0x29;
/** `/p2p/...` is code 421: varint `a5 03`. */
const CODE_P2P = [0xa5, 0x03] as const;

/** Where a peer listens. */
export interface Endpoint {
  /** Text form as the operating system writes it, IPv6 without brackets and zone. */
  readonly ip: string;
  readonly port: number;
}

/** The endpoint of a binary multiaddr `/ip4|ip6/.../tcp/...`, with or without `/p2p/...`; undefined for every other kind (DNS, relay, QUIC). */
export function parseEndpoint(multiaddr: Uint8Array): Endpoint | undefined {
  const sizeBytes = multiaddr[0] === CODE_IP4 ? 4 : multiaddr[0] === CODE_IP6 ? 16 : 0;
  const portAt = 1 + sizeBytes + 1;
  if (sizeBytes === 0 || multiaddr.length < portAt + 2 || multiaddr[portAt - 1] !== CODE_TCP)
    return undefined;
  const rest = multiaddr.subarray(portAt + 2);
  if (rest.length > 0 && !isPeerSuffix(rest)) return undefined;
  const port = (multiaddr[portAt] as number) * 256 + (multiaddr[portAt + 1] as number);
  if (port === 0) return undefined;
  return { ip: formatIp(multiaddr.subarray(1, 1 + sizeBytes)), port };
}

function isPeerSuffix(bytes: Uint8Array): boolean {
  return bytes[0] === CODE_P2P[0] && bytes[1] === CODE_P2P[1] && bytes[2] === bytes.length - 3;
}

/** The multiaddr text of an endpoint. */
export function formatEndpoint(endpoint: Endpoint): string {
  return `/ip${isIP(endpoint.ip)}/${endpoint.ip}/tcp/${endpoint.port}`;
}

/** The binary multiaddr of an endpoint. */
export function encodeEndpoint(endpoint: Endpoint): Buffer {
  const ip = parseIp(endpoint.ip);
  return Buffer.from([
    ip.length === 4 ? CODE_IP4 : CODE_IP6,
    ...ip,
    CODE_TCP,
    endpoint.port >> 8,
    endpoint.port & 0xff,
  ]);
}

/** 4 or 16 bytes of network order as text: dotted quad, or IPv6 after RFC 5952. */
export function formatIp(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join(".");
  const groups: number[] = [];
  for (let i = 0; i < 16; i += 2) groups.push((bytes[i] as number) * 256 + (bytes[i + 1] as number));
  if (groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff)
    return bytes.subarray(12).join(".");
  const zeros = longestZeroRun(groups);
  const text = (from: number, to: number): string =>
    groups
      .slice(from, to)
      .map((group) => group.toString(16))
      .join(":");
  if (zeros.length < 2) return text(0, 8);
  return `${text(0, zeros.start)}::${text(zeros.start + zeros.length, 8)}`;
}

function longestZeroRun(groups: readonly number[]): { readonly start: number; readonly length: number } {
  let best = { start: 0, length: 0 };
  for (let start = 0; start < groups.length; start++) {
    let length = 0;
    while (groups[start + length] === 0) length++;
    if (length > best.length) best = { start, length };
    start += length;
  }
  return best;
}

/** The bytes of an address text that `isIP` accepts; an IPv4 address mapped into IPv6 becomes its four bytes. */
export function parseIp(text: string): Uint8Array {
  if (isIP(text) === 4) return Uint8Array.from(text.split("."), Number);
  const withoutZone = text.split("%", 1)[0] as string;
  const quad = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(withoutZone);
  const plain =
    quad === null ? withoutZone : `${quad[1]}${hexPair(quad[2], quad[3])}:${hexPair(quad[4], quad[5])}`;
  const [front = "", back] = plain.split("::");
  const left = front === "" ? [] : front.split(":");
  const right = back === undefined || back === "" ? [] : back.split(":");
  const groups = [...left, ...Array<string>(8 - left.length - right.length).fill("0"), ...right].map(
    (group) => Number.parseInt(group, 16),
  );
  const bytes = Uint8Array.from(groups.flatMap((group) => [group >> 8, group & 0xff]));
  return formatIp(bytes).includes(".") ? bytes.subarray(12) : bytes;
}

function hexPair(high = "0", low = "0"): string {
  return (Number(high) * 256 + Number(low)).toString(16);
}

/** The one text form of an address, whatever way it was written. */
export function canonicalIp(text: string): string {
  return formatIp(parseIp(text));
}

const loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8, "ipv4");
loopback.addAddress("::1", "ipv6");

/** Addresses that mean nothing on another machine, or not a machine at all. */
const unroutable = new BlockList();
unroutable.addSubnet("0.0.0.0", 8, "ipv4");
unroutable.addSubnet("169.254.0.0", 16, "ipv4");
unroutable.addSubnet("224.0.0.0", 4, "ipv4");
unroutable.addAddress("255.255.255.255", "ipv4");
unroutable.addAddress("::", "ipv6");
unroutable.addSubnet("fe80::", 10, "ipv6");
unroutable.addSubnet("ff00::", 8, "ipv6");

export function isLoopback(ip: string): boolean {
  return loopback.check(ip, familyOf(ip));
}

/** Unspecified, link-local, multicast and broadcast addresses. */
export function isUnroutable(ip: string): boolean {
  return unroutable.check(ip, familyOf(ip));
}

function familyOf(ip: string): "ipv4" | "ipv6" {
  return isIP(ip) === 4 ? "ipv4" : "ipv6";
}

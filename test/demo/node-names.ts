// SPDX-License-Identifier: Apache-2.0
/**
 * Loaded into a program with `--import`: plays the name service of the machine it would run on. Without root a
 * demo cannot write /etc/hosts.
 *
 * `DEMO_NAMES` is a JSON object of names and IPv4 addresses; every other name is looked up as always.
 */
import dns, { type LookupOptions } from "node:dns";

type Callback = (
  error: Error | null,
  address?: string | { address: string; family: number }[],
  family?: number,
) => void;

const names = JSON.parse(process.env["DEMO_NAMES"] ?? "{}") as Readonly<Record<string, string>>;
const lookup = dns.lookup as (...args: unknown[]) => void;

dns.lookup = ((hostname: string, ...rest: unknown[]) => {
  const address = Object.hasOwn(names, hostname) ? names[hostname] : undefined;
  if (address === undefined) return lookup(hostname, ...rest);
  const callback = rest.at(-1) as Callback;
  const options = (rest.length > 1 ? rest[0] : {}) as LookupOptions | number;
  const all = typeof options === "object" && options.all === true;
  process.nextTick(() => (all ? callback(null, [{ address, family: 4 }]) : callback(null, address, 4)));
}) as typeof dns.lookup;

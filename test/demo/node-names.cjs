// SPDX-License-Identifier: Apache-2.0
/**
 * Loaded into a program with `--require`: plays the name service of the machine it would run on. Without root a
 * demo cannot write /etc/hosts. CommonJS, because an executable with Node inside loads nothing else ahead of itself.
 *
 * `DEMO_NAMES` is a JSON object of names and IPv4 addresses; every other name is looked up as always.
 */
"use strict";
const dns = require("node:dns");

const names = JSON.parse(process.env.DEMO_NAMES ?? "{}");
const lookup = dns.lookup;

dns.lookup = (hostname, ...rest) => {
  if (!Object.hasOwn(names, hostname)) return lookup(hostname, ...rest);
  const callback = rest.at(-1);
  const address = names[hostname];
  const all = typeof rest[0] === "object" && rest[0].all === true;
  process.nextTick(() => (all ? callback(null, [{ address, family: 4 }]) : callback(null, address, 4)));
};

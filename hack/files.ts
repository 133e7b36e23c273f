// SPDX-License-Identifier: Apache-2.0
/** Checks on the text of files: licence line, nothing that names one machine or one package registry. */
import { hostname } from "node:os";

const SPDX = /^(?:#!.*\n)?(?:\/\/|#) SPDX-License-Identifier: Apache-2\.0\n/;

/** Files that carry a licence line: sources, scripts, build files. Generated ones bring their own header. */
export function needsLicenceLine(file: string): boolean {
  return /\.(ts|sh|go)$|(^|\/)Makefile$|^\.ci\/run$/.test(file) && !file.split("/").includes("gen");
}

/** Undefined when the licence line stands first (after a `#!` line). */
export function checkLicenceLine(text: string): string | undefined {
  return SPDX.test(text) ? undefined : "has no SPDX-License-Identifier line at its start";
}

// Written in two parts each, so that this file passes its own check.
const FOREIGN: readonly { readonly pattern: RegExp; readonly reason: string }[] = [
  { pattern: new RegExp(`${"/ro"}ot/[a-z.]`), reason: "a path of one machine" },
  { pattern: new RegExp(`${"/wo"}rk/(main|shared|\\.library)`), reason: "a path of one machine" },
  { pattern: new RegExp(`${"/ho"}me/(?!nonroot)[a-z]+/`), reason: "a path of one machine" },
  {
    pattern: new RegExp(`registry\\.${"npm"}(js|mirror)|registry\\.${"yarn"}pkg`),
    reason: "the host of a package registry",
  },
];

/** Problems of one text file: each line that names a machine's path, this machine, or a package registry. */
export function checkPlaces(text: string, host: string = hostname()): string[] {
  const named = /^(localhost|\w{0,5})$/.test(host) ? [] : [{ text: host, reason: "the name of one machine" }];
  return text
    .split("\n")
    .flatMap((line, index) => [
      ...FOREIGN.filter(({ pattern }) => pattern.test(line)).map(
        ({ reason }) => `${index + 1}: holds ${reason}`,
      ),
      ...named.filter(({ text }) => line.includes(text)).map(({ reason }) => `${index + 1}: holds ${reason}`),
    ]);
}

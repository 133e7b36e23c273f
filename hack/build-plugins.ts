// SPDX-License-Identifier: Apache-2.0
import { readFile } from "node:fs/promises";
import type { Plugin } from "esbuild";
import { ROOT } from "./sources.ts";

/** Modules that a bundle takes from here instead of node_modules: same results with less memory. */
const SHIMS: Readonly<Record<string, string>> = {
  "@chainsafe/as-sha256": "hack/shims/sha256.ts",
  "@chainsafe/as-chacha20poly1305": "hack/shims/chacha20-poly1305.ts",
  "@grpc/proto-loader": "hack/shims/proto-loader.ts",
};

/** Replaces whole modules by those of hack/shims. */
export const shims: Plugin = {
  name: "shims",
  setup(build) {
    for (const [name, path] of Object.entries(SHIMS)) {
      build.onResolve({ filter: new RegExp(`^${name}$`) }, () => ({ path: `${ROOT}/${path}` }));
    }
  },
};

/**
 * The DHT's table of 65,536 key prefixes as a typed array, three bytes each in the text: the array literal
 * costs the daemon more than 1 MB of heap. The smaller table that the package has for browsers lacks three
 * quarters of the entries, so that most refreshes would ask for the wrong key.
 */
export const packedPrefixes: Plugin = {
  name: "packed-prefixes",
  setup(build) {
    build.onLoad(
      { filter: /kad-dht\/dist\/src\/routing-table\/generated-prefix-list\.js$/ },
      async (args) => {
        const text = await readFile(args.path, "utf8");
        return { contents: packPrefixes(text), loader: "js" };
      },
    );
  },
};

/** The module text that exports the numbers of `text` (`export default [1, 2, ...]`) as a Uint32Array. */
export function packPrefixes(text: string): string {
  const body = /^export default (\[[\d\s,]+\]);?\s*(?:\/\/.*)?\s*$/.exec(text)?.[1];
  if (body === undefined) throw new Error("the DHT's list of prefixes has another form than expected");
  const numbers = JSON.parse(body.replace(/,\s*\]$/, "]")) as number[];
  if (numbers.some((each) => each >= 2 ** 24))
    throw new Error("a prefix of the DHT needs more than three bytes");
  const bytes = Buffer.alloc(numbers.length * 3);
  numbers.forEach((each, index) => bytes.writeUIntLE(each, index * 3, 3));
  return [
    `const bytes = Buffer.from("${bytes.toString("base64")}", "base64");`,
    `const prefixes = new Uint32Array(${numbers.length});`,
    "for (let i = 0; i < prefixes.length; i++) prefixes[i] = bytes.readUIntLE(i * 3, 3);",
    "export default prefixes;",
  ].join("\n");
}

/** Programs ask package.json for the version only: the rest of it stays outside. */
export const versionOnly: Plugin = {
  name: "version-only",
  setup(build) {
    build.onLoad({ filter: /package\.json$/ }, async (args) => {
      if (args.path !== `${ROOT}/package.json`) return undefined;
      const { version } = JSON.parse(await readFile(args.path, "utf8")) as { version: string };
      return { contents: JSON.stringify({ version }), loader: "json" };
    });
  },
};

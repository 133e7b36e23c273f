// SPDX-License-Identifier: Apache-2.0
import type { Metafile } from "esbuild";
import { dependencyOf } from "./imports.ts";
import type { Program } from "./programs.ts";

export interface BundleSize {
  readonly bytes: number;
  /** Bytes by dependency, or by folder for sources of ours; largest first. */
  readonly parts: readonly (readonly [string, number])[];
  /** One line each; empty when the bundle keeps to its budget. */
  readonly problems: readonly string[];
}

/** Reads a bundle's metafile: what is inside, and whether that is allowed for this program. */
export function judgeBundle(program: Program, metafile: Metafile): BundleSize {
  const output = Object.values(metafile.outputs).find((each) => each.entryPoint !== undefined);
  if (output === undefined) throw new Error(`the metafile of ${program.name} names no bundle`);
  const sizes = new Map<string, number>();
  for (const [file, { bytesInOutput }] of Object.entries(output.inputs)) {
    const part = partOf(file);
    sizes.set(part, (sizes.get(part) ?? 0) + bytesInOutput);
  }
  const parts = [...sizes].toSorted(([, a], [, b]) => b - a);
  const problems = parts
    .filter(([part, bytes]) => bytes > 0 && program.forbidden.some((pattern) => matches(pattern, part)))
    .map(
      ([part, bytes]) =>
        `holds ${part} (${bytes} bytes), reached through ${pathTo(part, metafile).join(" -> ")}`,
    );
  if (output.bytes > program.maxBytes)
    problems.push(`has ${output.bytes} bytes, more than ${program.maxBytes}`);
  return { bytes: output.bytes, parts, problems };
}

/** `@scope/name` for a dependency, `pkg/name` for ours. */
function partOf(file: string): string {
  const inside = file.split("node_modules/").at(-1) ?? file;
  return inside === file ? file.split("/").slice(0, 2).join("/") : dependencyOf(inside);
}

function matches(pattern: string, dependency: string): boolean {
  return pattern.endsWith("/*") ? dependency.startsWith(pattern.slice(0, -1)) : pattern === dependency;
}

/** The files on the shortest way from the entry to the part, so that one sees which import to mend. */
function pathTo(part: string, metafile: Metafile): string[] {
  const entry =
    Object.values(metafile.outputs).find((each) => each.entryPoint !== undefined)?.entryPoint ?? "";
  const from = new Map<string, string | undefined>([[entry, undefined]]);
  for (const file of from.keys()) {
    if (partOf(file) === part) {
      const path = [file];
      for (let at = from.get(file); at !== undefined; at = from.get(at)) path.unshift(at);
      return path;
    }
    for (const { path, external } of metafile.inputs[file]?.imports ?? []) {
      if (external !== true && !from.has(path)) from.set(path, file);
    }
  }
  return [];
}

// SPDX-License-Identifier: Apache-2.0
import { existsSync } from "node:fs";
import { ROOT } from "./sources.ts";

/** A program of cmd/ and the form in which it is delivered. */
export interface Program {
  /** The folder in cmd/. */
  readonly folder: string;
  /** The file in dist/ and the image. */
  readonly name: string;
  /** `executable`: one file with Node inside. `launcher`: a script that starts Node with the bundle. */
  readonly form: "executable" | "launcher";
  /** Options of Node that the program always runs with. */
  readonly nodeOptions: readonly string[];
  /** Dependencies that the bundle must not contain; `@scope/*` is every package of a scope. */
  readonly forbidden: readonly string[];
  /** Largest bundle. */
  readonly maxBytes: number;
}

const QUIET = "--disable-warning=ExperimentalWarning";
const SMALL_HEAP = ["--max-semi-space-size=1", "--max-old-space-size=40"];
const SWARM = ["libp2p", "@libp2p/*", "@chainsafe/*", "@multiformats/*", "@grpc/*", "protobufjs"];

/**
 * What each program is made of. `forbidden` keeps memory in bounds: client-node costs 25-46 MB, typebox at run
 * time 3.5 MB; what a program has no use for must not reach it by accident.
 */
const PROGRAMS: readonly Program[] = [
  {
    folder: "spegel",
    name: "spegel",
    form: "executable",
    nodeOptions: ["--experimental-ffi", QUIET, ...SMALL_HEAP],
    forbidden: ["@kubernetes/client-node", "node-forge", "typebox", "ajv", "@libp2p/tls"],
    maxBytes: 1_800_000,
  },
  {
    folder: "bootstrapper",
    name: "registry-spegel-bootstrapper",
    form: "launcher",
    nodeOptions: [QUIET, ...SMALL_HEAP],
    forbidden: [...SWARM, "node-forge", "typebox"],
    maxBytes: 3_000_000,
  },
  {
    folder: "extension",
    name: "gardener-extension-registry-spegel",
    form: "launcher",
    nodeOptions: [QUIET],
    forbidden: SWARM,
    maxBytes: 6_500_000,
  },
  {
    folder: "admission",
    name: "gardener-extension-registry-spegel-admission",
    form: "launcher",
    nodeOptions: [QUIET],
    // node-forge makes the certificates of its webhook.
    forbidden: SWARM,
    maxBytes: 3_000_000,
  },
];

/** The programs that have a `cmd/<folder>/main.ts`. */
export function listPrograms(): Program[] {
  return PROGRAMS.filter((program) => existsSync(`${ROOT}/${entryOf(program)}`));
}

export function entryOf(program: Program): string {
  return `cmd/${program.folder}/main.ts`;
}

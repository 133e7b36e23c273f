// SPDX-License-Identifier: Apache-2.0
import { isIP } from "node:net";
import { dirname } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { parse } from "yaml";
import { createTaskGroup, directoryChanges, readSmallFile } from "#async";
import { CodedError, errorMessage } from "#errors";
import type { Logger } from "#log";
import type { NodeAddressEntry, NodeSource } from "./node-source.ts";

export type NodeListErrorCode =
  /** The file cannot be read or does not hold a list of nodes; `message` names the entry. */
  "NODELIST_FILE_INVALID";

export class NodeListError extends CodedError<NodeListErrorCode> {
  override readonly name = "NodeListError";
}

export interface NodesFileOptions {
  readonly path: string;
  /** Read the file this often, besides the notifications of the file system; default 30 s. */
  readonly pollMs?: number;
  readonly signal: AbortSignal;
}

const MAX_FILE_BYTES = 1024 * 1024;
const MAX_NODES = 10_000;
const MAX_ADDRESSES = 16;
const DEFAULT_POLL_MS = 30_000;

/**
 * Nodes from a YAML or JSON file, for clusters without a Kubernetes API in reach: a list of addresses, or of
 * `{name, addresses}` for nodes with more than one. The file is read again when it changes; a bad edit is
 * reported and the last good list stays. Its order is the order of the answers.
 *
 * @throws NodeListError NODELIST_FILE_INVALID when the file is not good at the start
 */
export async function openNodesFile(
  deps: { readonly logger: Logger },
  options: NodesFileOptions,
): Promise<NodeSource & AsyncDisposable> {
  const { path, signal, pollMs = DEFAULT_POLL_MS } = options;
  let nodes = await readNodesFile(path);
  let lastProblem = "";

  async function reload(): Promise<void> {
    try {
      const next = await readNodesFile(path);
      lastProblem = "";
      if (isDeepStrictEqual(next, nodes)) return;
      nodes = next;
      deps.logger.info("nodes file read again", { nodes: next.length });
    } catch (error) {
      const problem = errorMessage(error);
      if (problem !== lastProblem)
        deps.logger.warn("nodes file not read, the last list stays", { err: error });
      lastProblem = problem;
    }
  }

  const tasks = createTaskGroup({ signal });
  tasks.run("nodes file", async (taskSignal) => {
    const changes = directoryChanges(dirname(path), { signal: taskSignal, pollMs });
    for await (const _ of changes) await reload();
  });
  return { nodes: () => nodes, [Symbol.asyncDispose]: () => tasks[Symbol.asyncDispose]() };
}

async function readNodesFile(path: string): Promise<readonly NodeAddressEntry[]> {
  let text: string;
  try {
    text = await readSmallFile(path, { maxBytes: MAX_FILE_BYTES });
  } catch (error) {
    throw invalid(`${path} cannot be read`, error);
  }
  return parseNodesFile(text, path);
}

/**
 * @param path for messages
 * @throws NodeListError NODELIST_FILE_INVALID
 */
export function parseNodesFile(text: string, path: string): readonly NodeAddressEntry[] {
  let document: unknown;
  try {
    document = parse(text, { maxAliasCount: 0, logLevel: "error" });
  } catch (error) {
    throw invalid(`${path} is not YAML`, new Error(errorMessage(error).split("\n")[0]));
  }
  if (!Array.isArray(document)) throw invalid(`${path} is not a list of nodes`);
  if (document.length > MAX_NODES) throw invalid(`${path} has more than ${MAX_NODES} nodes`);
  return document.map((entry: unknown, index) => readEntry(entry, index, `${path}: [${index}]`));
}

function readEntry(entry: unknown, index: number, path: string): NodeAddressEntry {
  const fields = typeof entry === "string" ? { addresses: [entry] } : readFields(entry, path);
  const { name = "", addresses } = fields;
  if (typeof name !== "string") throw invalid(`${path}.name is not a string`);
  if (!Array.isArray(addresses) || addresses.length === 0 || addresses.length > MAX_ADDRESSES) {
    throw invalid(`${path}.addresses is not a list of 1 to ${MAX_ADDRESSES} IP addresses`);
  }
  for (const [at, address] of addresses.entries()) {
    if (typeof address !== "string" || isIP(address) === 0) {
      throw invalid(`${path}.addresses[${at}] is not an IP address`);
    }
  }
  return { name, addresses: addresses as string[], isReady: true, isTerminating: false, createdAtMs: index };
}

function readFields(entry: unknown, path: string): { readonly name?: unknown; readonly addresses?: unknown } {
  if (typeof entry !== "object" || entry === null || Array.isArray(entry)) {
    throw invalid(`${path} is neither an address nor an object`);
  }
  const unknown = Object.keys(entry).find((field) => field !== "name" && field !== "addresses");
  if (unknown !== undefined) throw invalid(`${path}.${unknown.slice(0, 60)} is not a known field`);
  return entry;
}

function invalid(message: string, cause?: unknown): NodeListError {
  return new NodeListError({ code: "NODELIST_FILE_INVALID", message, cause });
}

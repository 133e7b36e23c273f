// SPDX-License-Identifier: Apache-2.0
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { CONTAINERD_CERTS_DIRECTORY } from "#nodelayout";

/** One node of the Shoot: a folder that stands for its file system, and a loopback address that stands for its own. */
export interface DemoNode {
  readonly name: string;
  /** Each node has an address of its own, because Spegel assumes the same registry port on every peer. */
  readonly address: string;
  /** `/` of the node. */
  readonly root: string;
  /** containerd's `config_path`. */
  readonly hostsDirectory: string;
  /** The OCI layout that takes the place of containerd's content store. */
  readonly storeDirectory: string;
}

export async function createDemoNodes(directory: string): Promise<readonly DemoNode[]> {
  return Promise.all(
    [1, 2, 3].map(async (number) => {
      const name = `node-${number}`;
      const root = join(directory, name);
      await mkdir(root, { recursive: true });
      return {
        name,
        root,
        address: `127.0.0.${10 + number}`,
        hostsDirectory: join(root, CONTAINERD_CERTS_DIRECTORY),
        storeDirectory: join(root, "var/lib/content"),
      };
    }),
  );
}

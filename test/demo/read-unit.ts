// SPDX-License-Identifier: Apache-2.0
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { SPEGEL_UNIT_NAME } from "#nodelayout";
import type { DemoNode } from "./demo-node.ts";
import { demand } from "./errors.ts";

/** What systemd would run for the unit on this node: the words of its ExecStart. */
export async function readExecStart(node: DemoNode): Promise<readonly string[]> {
  const path = join(node.root, "etc/systemd/system", SPEGEL_UNIT_NAME);
  const text = await readFile(path, "utf8");
  const joined = text.replaceAll(/\\\n\s*/g, "");
  const command = /^ExecStart=(.+)$/m.exec(joined)?.[1];
  demand(command !== undefined, `${path} has no ExecStart`);
  return command.trim().split(/\s+/);
}

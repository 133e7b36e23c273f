// SPDX-License-Identifier: Apache-2.0
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { systemErrorCode } from "#errors";

/** What the kernel accounts to one unit, in bytes. */
export interface UnitMemory {
  readonly limit: number;
  /** All that counts against the limit now: anonymous, page cache, kernel. */
  readonly current: number;
  /** The highest that ever was; stays at the limit once page cache has filled it. */
  readonly peak: number;
  readonly anonymous: number;
  readonly file: number;
  /** Buffers of sockets. Version 2 counts them in `current`; version 1 does not, and knows them after `countSockets`. */
  readonly sockets: number;
  /** Processes killed because the limit was reached. */
  readonly oomKills: number;
}

const SOCKETS_USAGE = "memory.kmem.tcp.usage_in_bytes";
const SOCKETS_LIMIT = "memory.kmem.tcp.limit_in_bytes";

/** Makes a group of version 1 count the buffers of sockets that are opened from now on, under a limit never met. */
export async function countSockets(path: string): Promise<void> {
  await writeFile(join(path, SOCKETS_LIMIT), String(2 ** 40)).catch((error: unknown) => {
    // Version 2 always counts them.
    if (!["ENOENT", "EACCES", "EPERM"].includes(systemErrorCode(error) ?? "")) throw error;
  });
}

/** Reads a memory control group of either version; undefined when there is none. */
export async function readUnitMemory(path: string): Promise<UnitMemory | undefined> {
  try {
    return (await readVersion1(path)) ?? (await readVersion2(path));
  } catch (error) {
    // A group that goes away in the middle answers ENODEV.
    if (["ENOENT", "ENODEV"].includes(systemErrorCode(error) ?? "")) return undefined;
    throw error;
  }
}

async function readVersion1(path: string): Promise<UnitMemory | undefined> {
  const number = async (name: string): Promise<number> => Number(await readFile(join(path, name), "utf8"));
  const limit = await number("memory.limit_in_bytes").catch(() => undefined);
  if (limit === undefined) return undefined;
  const stat = await readTable(join(path, "memory.stat"));
  const control = await readTable(join(path, "memory.oom_control"));
  return {
    limit,
    current: await number("memory.usage_in_bytes"),
    peak: await number("memory.max_usage_in_bytes"),
    anonymous: stat.get("rss") ?? 0,
    file: stat.get("cache") ?? 0,
    sockets: await number(SOCKETS_USAGE).catch(() => 0),
    oomKills: control.get("oom_kill") ?? 0,
  };
}

async function readVersion2(path: string): Promise<UnitMemory | undefined> {
  const text = (name: string): Promise<string> => readFile(join(path, name), "utf8");
  const limit = (await text("memory.max")).trim();
  const stat = await readTable(join(path, "memory.stat"));
  const events = await readTable(join(path, "memory.events"));
  return {
    limit: limit === "max" ? Number.POSITIVE_INFINITY : Number(limit),
    current: Number(await text("memory.current")),
    peak: Number(await text("memory.peak")),
    anonymous: stat.get("anon") ?? 0,
    file: stat.get("file") ?? 0,
    sockets: stat.get("sock") ?? 0,
    oomKills: events.get("oom_kill") ?? 0,
  };
}

async function readTable(path: string): Promise<ReadonlyMap<string, number>> {
  const lines = (await readFile(path, "utf8")).trim().split("\n");
  return new Map(
    lines.map((line) => {
      const [name = "", value] = line.split(" ");
      return [name, Number(value)];
    }),
  );
}

// SPDX-License-Identifier: Apache-2.0
import { access, mkdir, readdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { systemErrorCode } from "#errors";

const ROOT = "/sys/fs/cgroup";

/** One tree of control groups, as a machine mounts it: version 1 has one per controller, version 2 has one. */
export interface Hierarchy {
  /** As mount(8) names it. */
  readonly type: "cgroup" | "cgroup2";
  readonly options: string;
  /** Below /sys/fs/cgroup; `.` for version 2. */
  readonly folder: string;
}

/** A control group of the machine's own in every hierarchy. Disposing removes them and what the machine made below. */
export interface MachineGroups extends AsyncDisposable {
  readonly version: 1 | 2;
  readonly hierarchies: readonly Hierarchy[];
  /** Absolute, in the order of `hierarchies`. */
  readonly paths: readonly string[];
  /** Where limits and use of memory are kept. */
  readonly memoryPath: string;
}

/** Makes control groups called `name`; needs root, and a control group file system that can be written. */
export async function openMachineGroups(name: string): Promise<MachineGroups> {
  const hierarchies = await listHierarchies();
  const version = hierarchies[0]?.folder === "." ? 2 : 1;
  const paths = hierarchies.map(({ folder }) => join(ROOT, folder, name));
  for (const [index, path] of paths.entries()) {
    if (version === 2) await writeFile(join(ROOT, "cgroup.subtree_control"), "+memory +cpu +pids");
    await mkdir(path);
    // A cpuset takes no process before it has processors and memory nodes.
    if (hierarchies[index]?.folder !== "cpuset") continue;
    for (const file of ["cpuset.cpus", "cpuset.mems"])
      await writeFile(join(path, file), await readFile(join(ROOT, "cpuset", file)));
  }
  const memoryFolder = version === 2 ? "." : "memory";
  return {
    version,
    hierarchies,
    paths,
    memoryPath: join(ROOT, memoryFolder, name),
    async [Symbol.asyncDispose]() {
      for (const path of paths) await removeTree(path);
    },
  };
}

async function listHierarchies(): Promise<readonly Hierarchy[]> {
  const mounts = (await readFile("/proc/self/mounts", "utf8")).split("\n").map((line) => line.split(" "));
  const found: Hierarchy[] = [];
  for (const [, path = "", type = "", options = ""] of mounts) {
    if ((type !== "cgroup" && type !== "cgroup2") || !path.startsWith(ROOT)) continue;
    const own = options
      .split(",")
      .filter((option) => !["rw", "relatime", "nosuid", "nodev", "noexec"].includes(option));
    if (own.includes("ro")) throw new Error(`${path} is mounted read-only`);
    const named = own.some((option) => option.startsWith("name=")) ? ["none", "xattr"] : [];
    const folder = path === ROOT ? "." : path.slice(ROOT.length + 1);
    found.push({
      type,
      options:
        type === "cgroup2" ? "rw" : [...named, ...own.filter((option) => option !== "xattr")].join(","),
      folder,
    });
  }
  if (!found.some(({ folder }) => folder === "memory" || folder === "."))
    throw new Error(`no memory controller below ${ROOT}`);
  await access(ROOT);
  return found;
}

// What was in them has been killed; the kernel may still be busy with the last exit.
async function removeTree(path: string): Promise<void> {
  const children = await readdir(path, { withFileTypes: true }).catch(() => []);
  for (const child of children) if (child.isDirectory()) await removeTree(join(path, child.name));
  for (let tries = 0; ; tries++) {
    try {
      return await rmdir(path);
    } catch (error) {
      const code = systemErrorCode(error);
      if (code === "ENOENT") return;
      if (code !== "EBUSY" || tries >= 100) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

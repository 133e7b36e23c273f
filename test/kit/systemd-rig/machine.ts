// SPDX-License-Identifier: Apache-2.0
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { sleep } from "#async";
import { inNamespace, type Namespace } from "../node-rig/index.ts";
import { startProcess } from "../process/index.ts";
import { openMachineGroups } from "./cgroups.ts";
import { countSockets, readUnitMemory, type UnitMemory } from "./unit-memory.ts";

const SCRIPT = fileURLToPath(new URL("./machine.sh", import.meta.url));
const BOOT_TIMEOUT_MS = 60_000;
const COMMAND_TIMEOUT_MS = 60_000;
const POLL_INTERVAL_MS = 20;

/** How a command inside the machine ended. */
export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** What systemd says of a unit; the names are those of `systemctl show`. */
export interface UnitState {
  readonly ActiveState: string;
  readonly SubState: string;
  readonly Result: string;
  /** 0 when nothing runs. In the machine's own numbering. */
  readonly MainPID: number;
  readonly NRestarts: number;
  /** When the main process was started, in microseconds of the monotonic clock. */
  readonly ExecMainStartTimestampMonotonic: number;
  readonly ExecMainExitTimestampMonotonic: number;
  /** 1 exited, 2 killed, 3 dumped core. */
  readonly ExecMainCode: number;
  /** Exit status or signal number of the last main process. */
  readonly ExecMainStatus: number;
}

/** A real systemd as pid 1 in namespaces of its own. Disposing is a power cut: everything in it is gone at once. */
export interface SystemdMachine extends AsyncDisposable {
  /** The machine's file system, as this process sees it; changes with a reboot. */
  readonly root: string;
  /** Version of the control groups that limits are kept by. */
  readonly groupVersion: 1 | 2;
  /** Runs a command inside. Rejects when it cannot be started or takes longer than a minute. */
  run(words: readonly string[], input?: string): Promise<CommandResult>;
  /** Runs a command inside that has to succeed, and gives what it printed. */
  demand(...words: string[]): Promise<string>;
  unit(name: string): Promise<UnitState>;
  /** Resolves with the state of a unit once it is as wanted. Rejects after `timeoutMs`, telling the last state. */
  untilUnit(name: string, wanted: (state: UnitState) => boolean, timeoutMs?: number): Promise<UnitState>;
  /** Process id of a unit's main process in this process' numbering; undefined when nothing runs. */
  mainPid(name: string): Promise<number | undefined>;
  /** Memory of a unit's control group; undefined when it has none. */
  memory(name: string): Promise<UnitMemory | undefined>;
  /** Lets `memory` tell the sockets that the unit opens from now on. */
  countSockets(name: string): Promise<void>;
  /** Restarts the machine as `systemctl reboot` does, and waits until it is up. */
  reboot(): Promise<void>;
  /** The newest lines of the journal, for error messages. */
  journal(unit: string): Promise<string>;
}

export interface MachineOptions {
  /** Its network. */
  readonly namespace: Namespace;
  /** Files that are there before the first boot, by absolute path. */
  readonly files: Readonly<Record<string, string>>;
  /** Folders that lie on a real disk instead of in memory. */
  readonly onDisk: readonly string[];
  readonly signal: AbortSignal;
}

/** Boots a machine and waits until all of its units are started; needs root and Debian's systemd. */
export async function bootMachine(options: MachineOptions): Promise<SystemdMachine> {
  const { signal, namespace } = options;
  await using opening = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), "systemd-rig-"));
  opening.defer(() => rm(directory, { recursive: true, force: true }));
  const groups = opening.use(await openMachineGroups(`spegel-${process.pid}-${directory.slice(-6)}`));
  await layOut(directory, options, groups);

  const [command = "", ...prefix] = inNamespace(namespace);
  const running = opening.use(
    await startProcess({
      name: "systemd",
      command,
      args: [
        ...prefix,
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "--",
        "sh",
        SCRIPT,
        "hold",
        directory,
      ],
      ready: { kind: "spawned" },
      signal,
    }),
  );
  /** The machine's pid 1; 0 before the first boot. */
  let init = 0;
  // Nothing in the machine hears a signal to the outer process group: its pid 1 has to go.
  opening.defer(() => kill(init));
  await untilBooted(0);

  function enter(words: readonly string[]): string[] {
    return [
      "--target",
      String(init),
      "--mount",
      "--pid",
      "--uts",
      "--ipc",
      "--net",
      "--cgroup",
      "--",
      ...words,
    ];
  }

  function run(words: readonly string[], input = ""): Promise<CommandResult> {
    return new Promise((resolve, reject) => {
      const child = execFile(
        "nsenter",
        enter(words),
        {
          signal,
          timeout: COMMAND_TIMEOUT_MS,
          maxBuffer: 16 * 1024 * 1024,
          env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" },
        },
        (error, stdout, stderr) => {
          const code = child.exitCode;
          if (code === null) reject(new Error(`${words.join(" ")}: ${error?.message}`));
          else resolve({ code, stdout, stderr });
        },
      );
      child.stdin?.on("error", () => {}); // it ended without reading
      child.stdin?.end(input);
    });
  }

  async function demand(...words: string[]): Promise<string> {
    const { code, stdout, stderr } = await run(words);
    if (code !== 0) throw new Error(`${words.join(" ")} ended with ${code}: ${stderr}${stdout}`);
    return stdout;
  }

  /** Waits for a pid 1 other than `last`, then until it has started everything. */
  async function untilBooted(last: number): Promise<void> {
    const deadline = AbortSignal.any([signal, AbortSignal.timeout(BOOT_TIMEOUT_MS)]);
    const stopped = new AbortController();
    void running.exited.then(() => stopped.abort());
    const either = AbortSignal.any([deadline, stopped.signal]);
    try {
      for (;;) {
        const pid = await grandchildOf(running.pid);
        if (pid !== undefined && pid !== last) {
          init = pid;
          // It exists once systemd takes orders; before, the first process is still the script.
          const { stdout } = await run(["systemctl", "is-system-running", "--wait"]).catch(() => ({
            stdout: "",
          }));
          if (/^(running|degraded)$/.test(stdout.trim())) return;
        }
        await sleep(POLL_INTERVAL_MS, { signal: either });
      }
    } catch (error) {
      throw new Error(`systemd did not boot:\n${running.output.tail(40)}`, { cause: error });
    }
  }

  async function unit(name: string): Promise<UnitState> {
    const text = await demand("systemctl", "show", name, `--property=${PROPERTIES.join(",")}`);
    const read = new Map(text.split("\n").map((line) => splitOnce(line)));
    const value = (key: string): string => read.get(key) ?? "";
    return {
      ActiveState: value("ActiveState"),
      SubState: value("SubState"),
      Result: value("Result"),
      MainPID: Number(value("MainPID")),
      NRestarts: Number(value("NRestarts")),
      ExecMainStartTimestampMonotonic: Number(value("ExecMainStartTimestampMonotonic")),
      ExecMainExitTimestampMonotonic: Number(value("ExecMainExitTimestampMonotonic")),
      ExecMainCode: Number(value("ExecMainCode")),
      ExecMainStatus: Number(value("ExecMainStatus")),
    };
  }

  const journal = async (name: string): Promise<string> =>
    (await run(["journalctl", "--no-pager", "--output=short-monotonic", "--lines=40", `--unit=${name}`]))
      .stdout;

  const groupOf = (name: string): string => join(groups.memoryPath, "system.slice", name);

  const opened = opening.move();
  return {
    get root() {
      return `/proc/${init}/root`;
    },
    groupVersion: groups.version,
    run,
    demand,
    unit,
    journal,
    async untilUnit(name, wanted, timeoutMs = 30_000) {
      const deadline = performance.now() + timeoutMs;
      for (;;) {
        const state = await unit(name);
        if (wanted(state)) return state;
        if (performance.now() > deadline)
          throw new Error(
            `${name} is ${JSON.stringify(state)} after ${timeoutMs} ms:\n${await journal(name)}`,
          );
        await sleep(POLL_INTERVAL_MS, { signal });
      }
    },
    async mainPid(name) {
      const { MainPID } = await unit(name);
      return MainPID === 0 ? undefined : outerPid(init, MainPID);
    },
    memory: (name) => readUnitMemory(groupOf(name)),
    countSockets: (name) => countSockets(groupOf(name)),
    async reboot() {
      const last = init;
      // The connection may be cut before the answer.
      await run(["systemctl", "reboot"]).catch(() => {});
      await untilBooted(last);
    },
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

const PROPERTIES: readonly (keyof UnitState)[] = [
  "ActiveState",
  "SubState",
  "Result",
  "MainPID",
  "NRestarts",
  "ExecMainStartTimestampMonotonic",
  "ExecMainExitTimestampMonotonic",
  "ExecMainCode",
  "ExecMainStatus",
];

async function layOut(
  directory: string,
  options: MachineOptions,
  groups: {
    readonly paths: readonly string[];
    readonly hierarchies: readonly { type: string; options: string; folder: string }[];
  },
): Promise<void> {
  for (const name of ["layer", "root", "disk", "files"]) await mkdir(join(directory, name), { mode: 0o755 });
  for (const path of options.onDisk) await mkdir(join(directory, "disk", path), { recursive: true });
  const files = {
    "/etc/machine-id": `${"0123456789abcdef".repeat(2)}\n`,
    "/etc/hostname": "node\n",
    ...options.files,
  };
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(directory, "files", path)), { recursive: true });
    await writeFile(join(directory, "files", path), text);
  }
  const lines = (all: readonly string[]): string => all.map((line) => `${line}\n`).join("");
  await writeFile(join(directory, "on-disk"), lines(options.onDisk));
  await writeFile(join(directory, "cgroups"), lines(groups.paths));
  await writeFile(
    join(directory, "hierarchies"),
    lines(groups.hierarchies.map((each) => `${each.type} ${each.options} ${each.folder}`)),
  );
}

async function childOf(pid: number): Promise<number | undefined> {
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8").catch(() => "");
  const [first] = children.trim().split(" ");
  return first ? Number(first) : undefined;
}

/** nsenter, unshare and sh replace each other; sh has the unshare of the machine as its child, and that has pid 1. */
async function grandchildOf(pid: number): Promise<number | undefined> {
  const child = await childOf(pid);
  return child === undefined ? undefined : childOf(child);
}

/** Finds the process that has number `inner` in the machine whose pid 1 is `init`. */
async function outerPid(init: number, inner: number): Promise<number | undefined> {
  if (inner === 1) return init;
  const children = await readFile(`/proc/${init}/task/${init}/children`, "utf8").catch(() => "");
  for (const pid of children.trim().split(" ").map(Number)) {
    const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
    if (/^NSpid:\s+(.*)$/m.exec(status)?.[1]?.split(/\s+/).at(-1) === String(inner)) return pid;
  }
  return undefined;
}

function kill(pid: number): void {
  if (pid === 0) return;
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It was gone already.
  }
}

function splitOnce(line: string): [string, string] {
  const at = line.indexOf("=");
  return [line.slice(0, at), line.slice(at + 1)];
}

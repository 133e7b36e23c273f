// SPDX-License-Identifier: Apache-2.0
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

/**
 * What can be asked of a group of swarm nodes in one process, whatever library they run on; one JSON line each way.
 * `node` counts the nodes of the group, from 0.
 */
export interface GroupRequest {
  /**
   * - `join`: every node dials `addrs` and is done when its routing table has an entry
   * - `refresh`: every node looks for its neighbours; `peers`: the size of each routing table
   * - `provide`: hands the keys over, gives the time of that in ms since 1970
   * - `records`: records of other nodes that the group was sent, each once
   * - `find`: ms to the first provider of each key, null for none; `miss`: ms to the end of each search
   * - `await`: asks for a key until it is found, gives the time of that in ms since 1970
   */
  readonly op: "join" | "refresh" | "peers" | "provide" | "records" | "find" | "miss" | "await";
  readonly node?: number;
  readonly keys?: readonly string[];
  readonly addrs?: readonly string[];
}

export interface Group extends AsyncDisposable {
  readonly pid: number;
  /** Multiaddrs with peer id, one per node. */
  readonly addresses: readonly string[];
  /** Requests are answered in order. */
  request<T>(request: GroupRequest): Promise<T>;
}

process.setMaxListeners(64); // one per group

/** Starts a process that speaks the protocol above. */
export async function startGroup(command: readonly string[]): Promise<Group> {
  const [program, ...args] = command as [string, ...string[]];
  const child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] });
  const kill = (): void => void child.kill("SIGKILL");
  process.once("exit", kill);
  const exited = once(child, "exit");
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();

  async function nextLine(): Promise<unknown> {
    const { value, done } = await lines.next();
    if (done === true) throw new Error(`${program} ended`);
    return JSON.parse(value);
  }

  const greeting = (await nextLine()) as { readonly addrs: string[] };
  let last: Promise<unknown> = Promise.resolve();
  return {
    pid: child.pid as number,
    addresses: greeting.addrs,
    request<T>(request: GroupRequest): Promise<T> {
      const answer = last
        .catch(() => {})
        .then(async () => {
          child.stdin.write(`${JSON.stringify(request)}\n`);
          const { result, error } = (await nextLine()) as { readonly result?: T; readonly error?: string };
          if (error !== undefined) throw new Error(`${request.op}: ${error}`);
          return result as T;
        });
      last = answer;
      return answer;
    },
    async [Symbol.asyncDispose]() {
      child.stdin.end();
      const timer = setTimeout(kill, 10_000);
      await exited;
      clearTimeout(timer);
      process.off("exit", kill);
    },
  };
}

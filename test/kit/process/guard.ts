// SPDX-License-Identifier: Apache-2.0
import { spawn } from "node:child_process";
import { once } from "node:events";

// Waits for a line on its input. The parent's death closes the pipe without one: then the group is killed.
const SCRIPT = 'read -r line || kill -s KILL -- "-$0" 2>/dev/null';

export interface Guard {
  /** Ends the guard without harm to the group, and waits until it is gone. */
  dismiss(): Promise<void>;
}

/**
 * Watches over one process group: kills it when this process ends in any way, SIGKILL included.
 *
 * A guard is a shell in a session of its own, so neither Ctrl-C in a terminal nor a signal to the parent's
 * group reaches it; it lives on the pipe between it and this process.
 */
export function startGuard(processGroup: number): Guard {
  const shell = spawn("/bin/sh", ["-c", SCRIPT, String(processGroup)], {
    stdio: ["pipe", "ignore", "ignore"],
    detached: true,
  });
  const gone = once(shell, "close").catch(() => {}); // a shell that cannot start guards nothing and is gone
  shell.stdin.on("error", () => {}); // it ended by itself after its kill
  shell.unref();
  return {
    async dismiss() {
      shell.ref();
      shell.stdin.end("dismissed\n");
      await gone;
    },
  };
}

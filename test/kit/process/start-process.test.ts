// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { sleep } from "#async";
import { hasCode } from "#errors";
import { createOutput, type RunningProcess, startProcess } from "./index.ts";

const WAIT_MS = 20_000;

function node(script: string): { command: string; args: string[] } {
  return { command: process.execPath, args: ["--input-type=module", "-e", script] };
}

const SERVER = `
  import http from "node:http";
  const server = http.createServer((request, response) => { response.statusCode = request.url === "/ok" ? 200 : 500; response.end(); });
  server.listen(0, "127.0.0.1", () => console.log("listening on " + server.address().port));
`;

test("a program is ready when it wrote the awaited line, and stops on SIGTERM", async (t) => {
  const seen: string[] = [];
  await using running = await startProcess({
    name: "server",
    ...node(SERVER),
    ready: { kind: "line", pattern: /^listening on \d+$/ },
    onLine: (line) => seen.push(line.text),
    signal: t.signal,
  });
  assert.match(seen.join("\n"), /listening on/);
  assert.equal(alive(running.pid), true);
  const exit = await running.stop();
  assert.equal(exit.signal, "SIGTERM");
  assert.equal(alive(running.pid), false);
});

test("a program is ready when its endpoint answers with success", async (t) => {
  await using first = await startProcess({
    name: "server",
    ...node(SERVER),
    ready: { kind: "line", pattern: /^listening/ },
    signal: t.signal,
  });
  const port = first.output.lines[0]?.text.split(" ").at(-1);
  await using waiting = await startProcess({
    name: "idle",
    ...node("setInterval(() => {}, 1000)"),
    ready: { kind: "http", url: `http://127.0.0.1:${port}/ok` },
    signal: t.signal,
  });
  assert.equal(alive(waiting.pid), true);
  await assert.rejects(
    startProcess({
      name: "never ready",
      ...node("console.error('still starting'); setInterval(() => {}, 1000)"),
      ready: { kind: "http", url: `http://127.0.0.1:${port}/failing` },
      readyTimeoutMs: 400,
      signal: t.signal,
    }),
    (error) => hasCode(error, "PROCESS_NOT_READY"),
  );
});

test("a program that ends before it is ready is reported with what it wrote", async (t) => {
  for (const ready of [
    { kind: "line", pattern: /never/ },
    { kind: "http", url: "http://127.0.0.1:9/" },
  ] as const) {
    await assert.rejects(
      startProcess({
        name: "broken",
        ...node("console.error('flag --x is unknown'); process.exit(3)"),
        ready,
        signal: t.signal,
      }),
      (error) =>
        hasCode(error, "PROCESS_EXITED") &&
        /ended with code 3/.test(error.message) &&
        /--x is unknown/.test(error.message),
    );
  }
});

test("a command that does not exist is an error, not a crash", async (t) => {
  await assert.rejects(
    startProcess({
      name: "ghost",
      command: "/does/not/exist",
      args: [],
      ready: { kind: "spawned" },
      signal: t.signal,
    }),
    (error) => hasCode(error, "PROCESS_NOT_STARTED"),
  );
});

test("a program that ignores SIGTERM is killed, with the children it started", async (t) => {
  const script = `
    import { spawn } from "node:child_process";
    process.on("SIGTERM", () => {});
    const grandchild = spawn(process.execPath, ["-e", "process.on('SIGTERM', () => {}); console.log('up'); setInterval(() => {}, 1000)"], { stdio: ["ignore", "pipe", "inherit"] });
    grandchild.stdout.once("data", () => console.log("grandchild " + grandchild.pid));
    setInterval(() => {}, 1000);
  `;
  const running = await startProcess({
    name: "stubborn",
    ...node(script),
    ready: { kind: "line", pattern: /^grandchild \d+$/ },
    stopTimeoutMs: 100,
    signal: t.signal,
  });
  const grandchild = Number(running.output.lines.at(-1)?.text.split(" ")[1]);
  const exit = await running.stop();
  assert.equal(exit.signal, "SIGKILL");
  await until(async () => !(await exists(grandchild)), t.signal);
});

for (const signal of ["SIGINT", "SIGKILL"] as const) {
  test(`no child is left when its parent dies of ${signal}`, async (t) => {
    const module = new URL("./index.ts", import.meta.url).href;
    const script = `
      import { startProcess } from ${JSON.stringify(module)};
      const child = await startProcess({ name: "child", command: process.execPath, args: ["-e", "setInterval(() => {}, 1000)"], ready: { kind: "spawned" }, signal: new AbortController().signal });
      console.log("child " + child.pid);
      setInterval(() => {}, 1000);
    `;
    const parent: RunningProcess = await startProcess({
      name: "parent",
      ...node(script),
      ready: { kind: "line", pattern: /^child \d+$/ },
      signal: t.signal,
    });
    const child = Number(parent.output.lines.at(-1)?.text.split(" ")[1]);
    assert.equal(await exists(child), true);
    parent.kill(signal);
    assert.equal((await parent.exited).signal, signal);
    await until(async () => !(await exists(child)), t.signal);
  });
}

test("waiting for a line ends with the caller's signal", async (t) => {
  await using running = await startProcess({
    name: "silent",
    ...node("setInterval(() => {}, 1000)"),
    ready: { kind: "spawned" },
    signal: t.signal,
  });
  const stop = new AbortController();
  const waiting = running.waitForLine(/never/, { timeoutMs: WAIT_MS, signal: stop.signal });
  stop.abort(new Error("enough"));
  await assert.rejects(waiting, /enough/);
  await assert.rejects(running.waitForLine(/never/, { timeoutMs: 1, signal: t.signal }), (error) =>
    hasCode(error, "PROCESS_LINE_MISSING"),
  );
});

test("output keeps the newest lines only and cuts endless ones", async () => {
  const { PassThrough } = await import("node:stream");
  const output = createOutput({ maxLines: 10 });
  const source = new PassThrough();
  output.follow("stderr", source);
  for (let i = 0; i < 100; i++) source.write(`line ${i}\n`);
  source.end("x".repeat(200_000));
  await new Promise((resolve) => source.once("close", resolve));
  assert.ok(output.lines.length <= 11);
  assert.equal(output.lines.at(-2)?.text, "line 99");
  assert.equal(output.lines.at(-1)?.text.length, 64 * 1024);
});

function alive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

/** A process that only waits to be collected by its parent no longer exists for us. */
async function exists(pid: number): Promise<boolean> {
  if (!alive(pid)) return false;
  const state = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "0 (gone) Z");
  return state.slice(state.lastIndexOf(")") + 2, state.lastIndexOf(")") + 3) !== "Z";
}

async function until(condition: () => Promise<boolean>, signal: AbortSignal): Promise<void> {
  const deadline = AbortSignal.any([signal, AbortSignal.timeout(WAIT_MS)]);
  while (!(await condition())) await sleep(10, { signal: deadline });
}

// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { watch } from "node:fs";
import { copyFile, mkdir, readdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { DATA_DIRECTORY, TEXTFILE_DIRECTORY } from "#nodelayout";
import {
  openSystemdRig,
  parseExposition,
  type SharedImage,
  type UnitState,
  unpackDebianPackage,
} from "../kit/systemd-rig/index.ts";

const MIB = 1024 * 1024;
const TEXTFILE = join(TEXTFILE_DIRECTORY, "spegel.prom");
const UNITS = ["containerd.service", "spegel.service", "spegel-metrics.service", "kubelet.service"];
const LIFE_TIMEOUT_MS = 590_000;
const STEP_TIMEOUT_MS = 120_000;
const signal = AbortSignal.timeout(LIFE_TIMEOUT_MS);

const isRunning = (state: UnitState): boolean =>
  state.ActiveState === "active" && state.SubState === "running";

// One life from the first boot to the last unit taken off: each step begins where the one before it ended, so the
// steps are awaited one by one and keep their order whatever the seed of the run.
test("a Shoot node under systemd", { timeout: LIFE_TIMEOUT_MS }, async (life) => {
  const step = (name: string, run: (t: TestContext) => Promise<void>): Promise<void> =>
    life.test(name, { timeout: STEP_TIMEOUT_MS }, run);

  // Before this process leaves the machine's network.
  const unpack = (name: string): Promise<string | Error> =>
    unpackDebianPackage(name, { signal }).catch((error: Error) => error);
  /** Folders of unpacked packages, or why there is none. */
  const packages: Readonly<Record<"prometheus" | "libfaketime", string | Error>> = {
    prometheus: await unpack("prometheus"),
    libfaketime: await unpack("libfaketime"),
  };
  await using rig = await openSystemdRig({ signal });
  const { machine } = rig;

  let images = 0;
  function addImage(): Promise<SharedImage> {
    const seed = `systemd ${images++}`;
    return rig.addImage(
      `rig/${seed.replace(" ", "-")}`,
      { seed, layerSizesBytes: [MIB, 2 * MIB] },
      { withNeighbour: true },
    );
  }

  /** Pulls an image that the neighbour has: its content has to come from there. */
  async function pullFromNeighbour(): Promise<void> {
    const image = await addImage();
    for (const { digest, kind } of image.layout.objects) {
      const section = kind === "manifest" ? "manifests" : "blobs";
      const repository = image.name.slice(image.name.indexOf("/") + 1, image.name.lastIndexOf(":"));
      await rig.untilStatus(`/v2/${repository}/${section}/${digest}?ns=registry.example.test`, 200);
    }
    const bytesBefore = rig.registry.bytesServed();
    await rig.pull(image.name);
    const fromUpstream = rig.registry.bytesServed() - bytesBefore;
    // The tag may not be announced yet; layers must not come from upstream.
    assert.ok(fromUpstream < MIB, `${fromUpstream} bytes came from upstream`);
  }

  async function untilTextfile(): Promise<string> {
    for (;;) {
      const text = await rig.textfile();
      if (text !== undefined) return text;
      signal.throwIfAborted();
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  async function isTextfileGone(): Promise<boolean> {
    return (await readdir(join(machine.root, TEXTFILE_DIRECTORY))).every(
      (name) => !name.startsWith("spegel"),
    );
  }

  await step("starts the daemon before kubelet, and kubelet does not wait for the bootstrapper", async () => {
    await rig.apply(rig.spegelConfiguration());
    for (const unit of UNITS) assert.ok(isRunning(await machine.unit(unit)), unit);
    const spegel = await machine.unit("spegel.service");
    const kubelet = await machine.unit("kubelet.service");
    assert.ok(spegel.ExecMainStartTimestampMonotonic < kubelet.ExecMainStartTimestampMonotonic);
    // Nobody to join: the daemon says so, and images come from upstream as if it were not there.
    await rig.untilStatus("/livez", 200);
    assert.equal(await rig.status("/readyz"), 500);
    const image = await addImage();
    await rig.pull(image.name);
    assert.ok(rig.registry.bytesServed() > 3 * MIB);
  });

  await step("joins by itself once the bootstrapper answers, and shares", async () => {
    await rig.startBootstrapper([rig.address, rig.network.upstream.address]);
    await rig.startNeighbour();
    await rig.untilReady();
    await pullFromNeighbour();
    assert.equal((await machine.unit("spegel.service")).NRestarts, 0);
  });

  await step("has units that systemd understands without a remark and finds well confined", async (t) => {
    const paths = ["spegel", "spegel-metrics"].map((name) => `/etc/systemd/system/${name}.service`);
    assert.deepEqual(await machine.run(["systemd-analyze", "verify", "--man=no", ...paths]), {
      code: 0,
      stdout: "",
      stderr: "",
    });
    for (const path of paths) {
      const report = await machine.demand(
        "systemd-analyze",
        "security",
        "--offline=true",
        "--no-pager",
        path,
      );
      const score = Number(/Overall exposure level for .*: ([0-9.]+) /.exec(report)?.[1]);
      t.diagnostic(`${path}: exposure ${score}`);
      assert.ok(score <= 3, report);
    }
  });

  await step("limits the daemon's memory by its own control group", async () => {
    const memory = await machine.memory("spegel.service");
    assert.equal(memory?.limit, 100 * MIB);
  });

  await step(
    "writes metrics that node-exporter can take: strict, without families of its own, readable by all",
    async (t) => {
      const text = await untilTextfile();
      const families = parseExposition(text);
      assert.ok(families.length > 10);
      for (const { name } of families) assert.match(name, /^(spegel|http)_/);
      assert.equal(((await stat(join(machine.root, TEXTFILE))).mode & 0o777).toString(8), "644");
      assert.equal(((await stat(join(machine.root, TEXTFILE_DIRECTORY))).mode & 0o777).toString(8), "755");
      const { prometheus } = packages;
      if (prometheus instanceof Error) return t.diagnostic(`without promtool: ${prometheus.message}`);
      const promtool = spawnSync(join(prometheus, "usr/bin/promtool"), ["check", "metrics"], {
        input: text,
        encoding: "utf8",
      });
      t.diagnostic(`promtool check metrics: ${promtool.status}`);
      assert.deepEqual([promtool.status, promtool.stdout, promtool.stderr.trim()], [0, "", ""]);
    },
  );

  await step("replaces the metrics in one step: nobody ever sees half of them", async () => {
    const folder = join(machine.root, "tmp/metrics");
    await mkdir(folder);
    const events: string[] = [];
    const watcher = watch(folder, (kind, name) => events.push(`${kind} ${name}`));
    try {
      for (let round = 0; round < 5; round++)
        await machine.demand("/opt/bin/spegel_metrics.sh", "9090", "/tmp/metrics/spegel.prom", "0");
      while (events.filter((event) => event === "rename spegel.prom").length < 5) {
        signal.throwIfAborted();
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    } finally {
      watcher.close();
    }
    assert.ok(events.includes("change spegel.prom.raw"), events.join());
    assert.ok(!events.includes("change spegel.prom"), events.join());
    assert.deepEqual(await readdir(folder), ["spegel.prom"]);
  });

  await step("comes back in the same order after a reboot", async () => {
    await machine.reboot();
    await rig.untilReady();
    const [containerd, spegel, , kubelet] = await Promise.all(
      UNITS.map((name) => machine.untilUnit(name, isRunning)),
    );
    assert.ok(containerd && spegel && kubelet);
    assert.ok(containerd.ExecMainStartTimestampMonotonic < spegel.ExecMainStartTimestampMonotonic);
    assert.ok(spegel.ExecMainStartTimestampMonotonic < kubelet.ExecMainStartTimestampMonotonic);
    await pullFromNeighbour();
  });

  await step("survives kill -9; the metrics go away and come back, kubelet notices nothing", async () => {
    await untilTextfile();
    const kubelet = await machine.unit("kubelet.service");
    await machine.demand("systemctl", "kill", "--signal=KILL", "spegel.service");
    await machine.untilUnit("spegel.service", (state) => state.SubState === "auto-restart");
    await machine.untilUnit("spegel-metrics.service", (state) => state.ActiveState === "inactive");
    assert.ok(await isTextfileGone());
    const again = await machine.untilUnit(
      "spegel.service",
      (state) => isRunning(state) && state.NRestarts === 1,
    );
    assert.equal(again.NRestarts, 1);
    await machine.untilUnit("spegel-metrics.service", isRunning);
    await rig.untilReady();
    await untilTextfile();
    await pullFromNeighbour();
    assert.deepEqual(await machine.unit("kubelet.service"), kubelet);
  });

  await step("restarts with containerd: on command, after its crash, and after stop and start", async () => {
    const kubelet = await machine.unit("kubelet.service");
    const restarts: Readonly<Record<string, () => Promise<unknown>>> = {
      command: () => machine.demand("systemctl", "restart", "containerd.service"),
      "with the units of the node agent": () => machine.demand("systemctl", "restart", ...UNITS.slice(0, 3)),
      crash: () =>
        machine.demand("systemctl", "kill", "--signal=KILL", "--kill-who=main", "containerd.service"),
      "stop and start": async () => {
        await machine.demand("systemctl", "stop", "containerd.service");
        await machine.untilUnit("spegel.service", (state) => state.ActiveState === "inactive");
        await machine.demand("systemctl", "start", "containerd.service");
      },
    };
    for (const [name, restart] of Object.entries(restarts)) {
      const former = await machine.unit("spegel.service");
      await restart();
      const isNew = (state: UnitState): boolean => isRunning(state) && state.MainPID !== former.MainPID;
      await machine.untilUnit("spegel.service", isNew);
      for (const unit of UNITS) await machine.untilUnit(unit, isRunning);
      await rig.untilReady();
      await untilTextfile();
      await pullFromNeighbour();
      assert.equal((await machine.unit("spegel.service")).Result, "success", name);
    }
    assert.deepEqual(await machine.unit("kubelet.service"), kubelet);
  });

  await step(
    "is killed by the watchdog when it hangs, and restarted; a pull in between ends well",
    async (t) => {
      const hung = await machine.mainPid("spegel.service");
      assert.ok(hung);
      const { NRestarts } = await machine.unit("spegel.service");
      const image = await addImage();
      const started = performance.now();
      const seconds = (): string => ((performance.now() - started) / 1000).toFixed(1);
      process.kill(hung, "SIGSTOP");
      const pulling = rig.pull(image.name).then(() => t.diagnostic(`the pull ended after ${seconds()} s`));
      const ended = await machine.untilUnit(
        "spegel.service",
        (state) => state.MainPID === 0 || state.Result === "watchdog",
      );
      t.diagnostic(`found after ${seconds()} s`);
      assert.equal(ended.Result, "watchdog");
      await machine.untilUnit(
        "spegel.service",
        (state) => isRunning(state) && state.NRestarts === NRestarts + 1,
      );
      t.diagnostic(`runs again after ${seconds()} s`);
      await pulling;
      await rig.untilReady();
      await pullFromNeighbour();
      const cores = (await readdir(machine.root)).filter((name) => name.startsWith("core"));
      assert.deepEqual(cores, [], "no core dump with the node's keys");
    },
  );

  await step("works with a disk that is full, with a new identity, and writes no half metrics", async () => {
    const full = [DATA_DIRECTORY, TEXTFILE_DIRECTORY];
    await machine.demand("systemctl", "stop", "spegel.service");
    for (const folder of full) {
      await machine.demand("mount", "-t", "tmpfs", "-o", "size=8k,mode=0755", "tmpfs", folder);
      await machine.run(["dd", "if=/dev/zero", `of=${folder}/fill`, "bs=1k"]);
    }
    try {
      await machine.demand("systemctl", "start", "spegel.service");
      await rig.untilReady();
      await pullFromNeighbour();
      assert.equal((await machine.unit("spegel.service")).NRestarts, 0);
      assert.deepEqual(await readdir(join(machine.root, DATA_DIRECTORY)), ["fill"]);
      const once = await machine.run(["/opt/bin/spegel_metrics.sh", "9090", TEXTFILE, "0"]);
      assert.notEqual(once.code, 0);
      assert.equal(await rig.textfile(), undefined);
    } finally {
      for (const folder of full) await machine.demand("umount", "--lazy", folder);
    }
    await machine.demand("systemctl", "restart", "spegel.service");
    await rig.untilReady();
    await untilTextfile();
  });

  await step("does not mind a clock that jumps by ten years in either direction", async (t) => {
    // No namespace has a wall clock of its own: the jump is seen by the daemon alone.
    const { libfaketime } = packages;
    if (libfaketime instanceof Error) return t.skip(libfaketime.message);
    const library = await findFile(libfaketime, "libfaketimeMT.so.1");
    await mkdir(join(machine.root, "opt/clock"));
    await copyFile(library, join(machine.root, "opt/clock/libfaketime.so"));
    const setClock = (offset: string): Promise<void> =>
      writeFile(join(machine.root, "opt/clock/offset"), `${offset}\n`);
    await setClock("+0d");
    await rig.addDropIn("spegel.service", CLOCK_DROP_IN);
    await rig.untilReady();
    const { MainPID } = await machine.unit("spegel.service");
    for (const [offset, year] of [
      ["+3650d", new Date().getFullYear() + 10],
      ["-3650d", new Date().getFullYear() - 10],
      ["+0d", new Date().getFullYear()],
    ] as const) {
      await setClock(offset);
      await untilYear(year);
      t.diagnostic(`the daemon is in ${year}`);
      await pullFromNeighbour();
      assert.equal(await rig.status("/readyz"), 200);
    }
    assert.equal((await machine.unit("spegel.service")).MainPID, MainPID, "it was restarted");
  });

  /** Waits until the daemon's answers carry about this year. */
  async function untilYear(year: number): Promise<void> {
    for (;;) {
      const response = await fetch(`http://${rig.address}:5000/livez`, { signal });
      await response.body?.cancel();
      const found = new Date(response.headers.get("date") ?? 0).getFullYear();
      if (Math.abs(found - year) <= 1) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  await step("takes the metrics away when it is stopped", async () => {
    await untilTextfile();
    await machine.demand("systemctl", "stop", "spegel.service");
    await machine.untilUnit("spegel-metrics.service", (state) => state.ActiveState === "inactive");
    assert.ok(await isTextfileGone());
  });

  await step("leaves a node that pulls when it is taken off again", async () => {
    await rig.apply(rig.plainConfiguration());
    for (const unit of ["spegel.service", "spegel-metrics.service"])
      assert.equal((await machine.unit(unit)).ActiveState, "inactive");
    assert.equal(await rig.status("/livez"), undefined);
    const image = await addImage();
    const served = rig.registry.bytesServed();
    await rig.pull(image.name);
    assert.ok(rig.registry.bytesServed() - served > 3 * MIB);
  });
});

const CLOCK_DROP_IN = `[Service]
Environment=LD_PRELOAD=/opt/clock/libfaketime.so FAKETIME_TIMESTAMP_FILE=/opt/clock/offset
Environment=FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1
`;

async function findFile(folder: string, name: string): Promise<string> {
  const files = await readdir(folder, { recursive: true, withFileTypes: true });
  const found = files.find((file) => file.name === name);
  if (found === undefined) throw new Error(`${folder} has no ${name}`);
  return join(found.parentPath, found.name);
}

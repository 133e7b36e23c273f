// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { createDemoNodes } from "./demo-node.ts";
import { anyFree, findPorts } from "./free-ports.ts";
import { readExecStart } from "./read-unit.ts";
import { readCounter, readRequestLog } from "./request-log.ts";
import { adaptFlags } from "./start-daemons.ts";

test("the unit's flags are moved to the node's address and folder, all others stay", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "demo-flags-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const [node] = await createDemoNodes(directory);
  assert.ok(node);
  const words = [
    "registry",
    "--log-level=INFO",
    "--registry-addr=:5000",
    "--router-addr=:5001",
    "--metrics-addr=127.0.0.1:9090",
    "--http-bootstrap-url=https://spegel.example.test/bootstrap-nodes",
    "--http-bootstrap-cert-dir=/var/lib/spegel/certs",
    "--data-dir=/var/lib/spegel/data",
  ];
  assert.deepEqual(adaptFlags(words, node, { bootstrapper: { address: "127.0.0.1", port: 7443 } }), [
    "registry",
    "--log-level=INFO",
    "--registry-addr=127.0.0.11:5000",
    "--router-addr=127.0.0.11:5001",
    "--metrics-addr=127.0.0.11:9090",
    "--http-bootstrap-url=https://spegel.example.test:7443/bootstrap-nodes",
    `--http-bootstrap-cert-dir=${node.root}/var/lib/spegel/certs`,
    `--data-dir=${node.root}/var/lib/spegel/data`,
    `--store=oci-layout:${node.storeDirectory}`,
  ]);
});

test("ExecStart is read over continued lines, and its absence is told", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "demo-unit-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const [node] = await createDemoNodes(directory);
  assert.ok(node);
  const units = join(node.root, "etc/systemd/system");
  await mkdir(units, { recursive: true });
  await writeFile(
    join(units, "spegel.service"),
    "[Service]\nExecStart=/opt/bin/spegel registry \\\n  --a=1 \\\n  --b=2\nRestart=always\n",
  );
  assert.deepEqual(await readExecStart(node), ["/opt/bin/spegel", "registry", "--a=1", "--b=2"]);
  await writeFile(join(units, "spegel.service"), "[Service]\nRestart=always\n");
  await assert.rejects(readExecStart(node), /has no ExecStart/);
});

test("taken ports are replaced by free ones", async () => {
  const { createServer } = await import("node:net");
  const port = await anyFree(["127.0.0.11", "127.0.0.12"]);
  const server = createServer().listen(port, "127.0.0.12");
  await new Promise((resolve) => server.once("listening", resolve));
  try {
    const preferred = { registryPort: port, routerPort: port, metricsPort: port };
    const found = await findPorts(["127.0.0.11", "127.0.0.12"], { preferred });
    assert.ok(Object.values(found).every((each) => each !== port && each > 0));
  } finally {
    server.close();
  }
});

test("only answers to pulls are read from a daemon's log, and counters from its metrics", () => {
  const lines = [
    { stream: "stdout", text: "Request answered." },
    { stream: "stderr", text: '{"msg":"Serving."}' },
    { stream: "stderr", text: '{"method":"GET","path":"/v2/","msg":"Request answered."}' },
    {
      stream: "stderr",
      text: '{"method":"HEAD","reference":"v1","bytes":0,"source":"local","msg":"Request answered."}',
    },
    {
      stream: "stderr",
      text: '{"method":"GET","reference":"sha256:1","mirrored":true,"bytes":5,"source":"local","durationMs":1.5,"msg":"Request answered."}',
    },
  ] as const;
  const daemon = { process: { output: { lines } } } as unknown as Parameters<typeof readRequestLog>[0];
  assert.deepEqual(readRequestLog(daemon), [
    {
      method: "GET",
      reference: "sha256:1",
      mirrored: true,
      bytes: 5,
      source: "local",
      peers: [],
      durationMs: 1.5,
    },
  ]);
  const exposition = '# HELP x\nx{source="local"} 12\nx{source="peer"} 7\n';
  assert.equal(readCounter(exposition, "x", { source: "peer" }), 7);
  assert.equal(readCounter(exposition, "x", { source: "none" }), 0);
});

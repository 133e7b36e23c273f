// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import fc from "fast-check";
import jsonPatch, { type Operation } from "fast-json-patch";
import { parse } from "yaml";
import { registrySchema, validateRegistryConfiguration } from "#api/config";
import type { File, OperatingSystemConfig, PluginConfig, RegistryConfig, Unit } from "#api/gardener";
import { loadSettings } from "#config";
import { validateOSC } from "#kit/node-agent";
import {
  addSpegel,
  type JSONPatchOperation,
  type Mutation,
  mutateOSC,
  type NodeSettings,
  type OSCContext,
  resolveOptions,
} from "./index.ts";

const OPTIONS = resolveOptions({ image: "registry.example/spegel@sha256:0123" });
const STATUS = {
  apiVersion: "spegel.extensions.gardener.cloud/v1alpha1",
  kind: "SpegelStatus",
  bootstrapURL: "https://spegel-foo--bar.ingress.example/bootstrap-nodes",
  caBundleSecretName: "ca-extension-registry-spegel-bundle-0a1b2c3d",
  clientSecretName: "registry-spegel-client-1a2b3c4d-5e6f7",
  registryPort: 5000,
  routerPort: 5001,
  metricsPort: 9090,
};
const CONTEXT: OSCContext = {
  cluster: { spec: { shoot: { metadata: {}, spec: {} }, seed: {} } },
  extension: { metadata: {}, status: { providerStatus: STATUS } },
};
const { apiVersion: _apiVersion, kind: _kind, ...STATUS_VALUES } = STATUS;
const NODE: NodeSettings = { ...OPTIONS, ...STATUS_VALUES };
const signal = new AbortController().signal;

async function readExample(name: string): Promise<OperatingSystemConfig> {
  return parse(
    await readFile(new URL(`../../example/${name}`, import.meta.url), "utf8"),
  ) as OperatingSystemConfig;
}

const RECONCILE = await readExample("osc-reconcile.yaml");

function withContainerd(
  registries: readonly RegistryConfig[],
  plugins?: readonly PluginConfig[],
): OperatingSystemConfig {
  return {
    ...RECONCILE,
    spec: {
      ...RECONCILE.spec,
      criConfig: {
        name: "containerd",
        containerd: { sandboxImage: "pause", registries, ...(plugins === undefined ? {} : { plugins }) },
      },
    },
  };
}

/** All additions; the result passes Gardener's own validation whenever the input does. */
function add(osc: OperatingSystemConfig, node: Partial<NodeSettings> = {}): OperatingSystemConfig {
  const result = addSpegel(osc, { ...NODE, ...node });
  if (validateOSC(osc).length === 0) assert.deepEqual(validateOSC(result), []);
  return result;
}

function registriesOf(osc: OperatingSystemConfig): readonly RegistryConfig[] {
  return osc.spec.criConfig?.containerd?.registries ?? [];
}

function pluginsOf(osc: OperatingSystemConfig): readonly PluginConfig[] {
  return osc.spec.criConfig?.containerd?.plugins ?? [];
}

function hostsOf(osc: OperatingSystemConfig, upstream: string): string[] {
  return registriesOf(osc)
    .filter((entry) => entry.upstream === upstream)
    .flatMap((entry) => (entry.hosts ?? []).map((host) => host.url));
}

function unitOf(osc: OperatingSystemConfig, name: string): Unit {
  const unit = osc.spec.units?.find((each) => each.name === name);
  assert.ok(unit !== undefined, `no unit ${name}`);
  return unit;
}

/** Runs the whole line and applies the patch as the API server does. */
async function mutate(osc: unknown, context: OSCContext | undefined = CONTEXT): Promise<unknown> {
  const mutation = await mutateOSC(
    osc,
    { namespace: "shoot--foo--bar", loadContext: async () => context, signal },
    OPTIONS,
  );
  assert.equal(mutation.kind, "change", JSON.stringify(mutation));
  return applyPatch(osc, mutation.kind === "change" ? mutation.patch : []);
}

function applyPatch(document: unknown, patch: readonly JSONPatchOperation[]): unknown {
  return jsonPatch.applyPatch(structuredClone(document), structuredClone(patch) as Operation[], true)
    .newDocument;
}

async function reasonOf(osc: unknown, context?: OSCContext): Promise<string> {
  const mutation = await mutateOSC(
    osc,
    { namespace: "n", loadContext: async () => context, signal },
    OPTIONS,
  );
  return mutation.kind === "leave" ? `leave: ${mutation.reason}` : mutation.kind;
}

describe("addSpegel", () => {
  it("adds executable, script and certificates, the key by reference only", () => {
    const before = RECONCILE.spec.files ?? [];
    const files = add(RECONCILE).spec.files ?? [];
    assert.deepEqual(files.slice(0, before.length), before);
    const added = files.slice(before.length);
    assert.deepEqual(
      added.map((file) => [file.path, file.permissions, Object.keys(file.content)[0]]),
      [
        ["/opt/bin/spegel", 493, "imageRef"],
        ["/opt/bin/lib/libgcc_s.so.1", 420, "imageRef"],
        ["/opt/bin/lib/libstdc++.so.6", 420, "imageRef"],
        ["/var/lib/spegel/certs/ca.crt", 420, "secretRef"],
        ["/var/lib/spegel/certs/tls.crt", 420, "secretRef"],
        ["/var/lib/spegel/certs/tls.key", 384, "secretRef"],
        ["/opt/bin/spegel_metrics.sh", 493, "inline"],
      ],
    );
    assert.deepEqual(added[0]?.content.imageRef, { image: OPTIONS.image, filePathInImage: "/spegel" });
    assert.deepEqual(added[2]?.content.imageRef, {
      image: OPTIONS.image,
      filePathInImage: "/lib/libstdc++.so.6",
    });
    assert.deepEqual(added[3]?.content.secretRef, { name: STATUS.caBundleSecretName, dataKey: "bundle.crt" });
    assert.deepEqual(added[5]?.content.secretRef, { name: STATUS.clientSecretName, dataKey: "tls.key" });
    assert.equal(added[6]?.content.inline?.encoding, "b64");
  });

  it("adds the daemon with the flags and limits of the node", () => {
    const unit = unitOf(
      add(RECONCILE, { registryPort: 15500, metricsPort: 19090, memoryMax: "128M" }),
      "spegel.service",
    );
    const lines = (unit.content ?? "").split("\n").map((line) => line.replace(/ \\$/, "").trim());
    for (const line of [
      "After=containerd.service",
      "Requires=containerd.service",
      "Before=kubelet.service",
      "WantedBy=multi-user.target",
      "StartLimitIntervalSec=0",
      "Restart=always",
      "RestartSec=5",
      "MemoryHigh=80M",
      "MemoryMax=128M",
      "EnvironmentFile=-/etc/environment",
      "ExecStart=/opt/bin/spegel registry",
      "--registry-addr=:15500",
      "--router-addr=:5001",
      "--metrics-addr=127.0.0.1:19090",
      "--debug-web-enabled=false",
      "--bootstrap-kind=http",
      "--http-bootstrap-url=https://spegel-foo--bar.ingress.example/bootstrap-nodes",
      "--http-bootstrap-cert-dir=/var/lib/spegel/certs",
      "--containerd-namespace=k8s.io",
      "--data-dir=/var/lib/spegel/data",
    ]) {
      assert.ok(lines.includes(line), line);
    }
    assert.doesNotMatch(unit.content ?? "", /--http-bootstrap-addr/);
    assert.equal(unit.command, "start");
    assert.equal(unit.enable, true);
    assert.deepEqual(unit.filePaths, [
      "/opt/bin/spegel",
      "/opt/bin/lib/libgcc_s.so.1",
      "/opt/bin/lib/libstdc++.so.6",
      "/var/lib/spegel/certs/ca.crt",
      "/var/lib/spegel/certs/tls.crt",
      "/var/lib/spegel/certs/tls.key",
    ]);
  });

  it("gives the daemon a watchdog, unless the executable does not feed one", () => {
    const textWith = (change: Partial<NodeSettings>): string =>
      unitOf(add(RECONCILE, change), "spegel.service").content ?? "";
    assert.match(textWith({}), /\nNotifyAccess=main\nWatchdogSec=5\n/);
    assert.match(textWith({ watchdogSeconds: 10 }), /\nWatchdogSec=10\n/);
    assert.doesNotMatch(textWith({ watchdogSeconds: 0 }), /Watchdog|NotifyAccess/);
  });

  it("binds the metrics unit to the daemon and removes its file when it stops", () => {
    const unit = unitOf(add(RECONCILE), "spegel-metrics.service");
    assert.match(unit.content ?? "", /\nBindsTo=spegel\.service\n/);
    assert.match(unit.content ?? "", /\nWantedBy=multi-user\.target spegel\.service\n/);
    assert.match(
      unit.content ?? "",
      /\nExecStart=\/opt\/bin\/spegel_metrics\.sh 9090 \/var\/lib\/node-exporter\//,
    );
    assert.match(unit.content ?? "", /\nExecStopPost=\/bin\/rm -f \S+\/spegel\.prom /);
    assert.deepEqual(unit.filePaths, ["/opt/bin/spegel_metrics.sh"]);
  });

  it("mirrors every other registry by an entry that has hosts and nothing else", () => {
    const entries = registriesOf(add(withContainerd([])));
    assert.deepEqual(entries, [
      { upstream: "_default", hosts: [{ url: "http://localhost:5000", capabilities: ["pull", "resolve"] }] },
    ]);
  });

  it("comes first in every entry and leaves the rest of it as it is", () => {
    const before = registriesOf(RECONCILE);
    const after = registriesOf(add(RECONCILE));
    assert.deepEqual(
      after.map((entry) => entry.upstream),
      ["ghcr.io", "docker.io", "_default"],
    );
    for (const [index, entry] of before.entries()) {
      const { hosts = [], ...rest } = after[index] as RegistryConfig;
      assert.equal(hosts?.[0]?.url, "http://localhost:5000");
      assert.deepEqual({ ...rest, hosts: hosts?.slice(1) }, entry);
    }
  });

  it("does not resolve tags where the mirrors of an upstream only pull", () => {
    const [ghcr, docker] = registriesOf(add(RECONCILE));
    assert.deepEqual(ghcr?.hosts?.[0]?.capabilities, ["pull", "resolve"]);
    assert.deepEqual(docker?.hosts?.[0]?.capabilities, ["pull"]);
  });

  it("stays out of entries with a probe when the operator wants it so", () => {
    const cache = { url: "http://10.4.5.6:5000" };
    const probed = { upstream: "ghcr.io", readinessProbe: true, hosts: [cache] };
    const plain = { upstream: "quay.io", readinessProbe: false, hosts: [cache] };
    const osc = withContainerd([probed, plain]);
    const without = add(osc, { mirrorProbedRegistries: false });
    assert.deepEqual(registriesOf(without)[0], probed);
    assert.deepEqual(hostsOf(without, "quay.io"), ["http://localhost:5000", cache.url]);
    assert.deepEqual(hostsOf(without, "_default"), ["http://localhost:5000"]);
    assert.deepEqual(hostsOf(add(osc), "ghcr.io"), ["http://localhost:5000", cache.url], "the default");
    assert.deepEqual(add(add(osc), { mirrorProbedRegistries: false }), without, "and goes out of them");
  });

  it("only pulls everywhere when the operator wants it so", () => {
    for (const entry of registriesOf(add(RECONCILE, { capabilities: ["pull"] }))) {
      assert.deepEqual(entry.hosts?.[0]?.capabilities, ["pull"]);
    }
  });

  it("gives the daemon the operator's filters in a file, and takes it away again", async () => {
    const registryFilters = ["^private[.]example[.]com/", ':v1,2{3}" %h $HOME \\d$'];
    const filtered = add(RECONCILE, { registryFilters });
    const path = "/var/lib/spegel/registry.json";
    const unit = unitOf(filtered, "spegel.service");
    assert.match(unit.content ?? "", /\n {2}--config=\/var\/lib\/spegel\/registry\.json\n/);
    assert.ok(unit.filePaths?.includes(path), "a change of it restarts the daemon");
    const file = filtered.spec.files?.find((each) => each.path === path);
    const directory = await mkdtemp(join(tmpdir(), "filters-"));
    try {
      const copy = join(directory, "registry.json");
      await writeFile(copy, Buffer.from(file?.content.inline?.data ?? "", "base64"));
      const schema = { properties: registrySchema.properties, validate: validateRegistryConfiguration };
      const settings = await loadSettings<{ registryFilters: string[] }>(schema, {
        argv: [`--config=${copy}`, "--bootstrap-kind=http"],
        environment: {},
      });
      assert.deepEqual(settings.registryFilters, registryFilters);
    } finally {
      await rm(directory, { recursive: true });
    }
    assert.deepEqual(add(filtered, { registryFilters }), filtered);
    assert.deepEqual(add(filtered), add(RECONCILE), "nothing of it stays");
    const patch = await mutateOSC(
      filtered,
      { namespace: "n", loadContext: async () => CONTEXT, signal },
      OPTIONS,
    );
    assert.deepEqual(applyPatch(filtered, patch.kind === "change" ? patch.patch : []), add(filtered));
  });

  it("takes an entry without hosts as one with none", () => {
    for (const hosts of [undefined, null, []]) {
      const entry = { upstream: "quay.io", ...(hosts === undefined ? {} : { hosts }) };
      assert.deepEqual(hostsOf(add(withContainerd([entry])), "quay.io"), ["http://localhost:5000"]);
    }
  });

  it("keeps the hosts of somebody else's _default behind its own", () => {
    const foreign = {
      upstream: "_default",
      hosts: [{ url: "https://mirror.example" }],
      server: "https://x.example",
    };
    const other = { upstream: "quay.io", hosts: [{ url: "https://q.example" }] };
    const result = add(withContainerd([foreign, other]));
    assert.deepEqual(hostsOf(result, "_default"), ["http://localhost:5000", "https://mirror.example"]);
    assert.equal(registriesOf(result)[0]?.server, "https://x.example");
    assert.equal(registriesOf(result).length, 2);
  });

  it("takes its old host away when the port changes, and no other local one", () => {
    const dragonfly = { upstream: "quay.io", hosts: [{ url: "http://localhost:65001" }] };
    const old = add(withContainerd([dragonfly]));
    const result = add(old, { registryPort: 15500 });
    assert.deepEqual(hostsOf(result, "quay.io"), ["http://localhost:15500", "http://localhost:65001"]);
    assert.deepEqual(hostsOf(result, "_default"), ["http://localhost:15500"]);
    assert.deepEqual(result, add(withContainerd([dragonfly]), { registryPort: 15500 }));
  });

  it("sets discard_unpacked_layers for both layouts of containerd's configuration", () => {
    assert.deepEqual(pluginsOf(add(RECONCILE)), [
      {
        op: "add",
        path: ["io.containerd.grpc.v1.cri", "containerd"],
        values: { discard_unpacked_layers: false },
      },
      { op: "add", path: ["io.containerd.cri.v1.images"], values: { discard_unpacked_layers: false } },
    ]);
  });

  it("keeps values that others set in the same table, and their spelling of the operation", () => {
    const path = ["io.containerd.cri.v1.images"];
    const foreign = [
      { path, values: { max_concurrent_downloads: 5, discard_unpacked_layers: true } },
      { op: "remove" as const, path: ["io.containerd.grpc.v1.cri", "containerd"] },
    ];
    assert.deepEqual(pluginsOf(add(withContainerd([], foreign))), [
      { path, values: { max_concurrent_downloads: 5, discard_unpacked_layers: false } },
      { op: "remove", path: ["io.containerd.grpc.v1.cri", "containerd"] },
      {
        op: "add",
        path: ["io.containerd.grpc.v1.cri", "containerd"],
        values: { discard_unpacked_layers: false },
      },
    ]);
  });

  it("replaces files and units of its names in place, and keeps drop-ins of others", () => {
    const stale: OperatingSystemConfig = {
      ...RECONCILE,
      spec: {
        ...RECONCILE.spec,
        files: [
          { path: "/opt/bin/spegel", permissions: 511, content: { inline: { encoding: "", data: "x" } } },
          ...(RECONCILE.spec.files ?? []),
        ],
        units: [
          {
            name: "spegel.service",
            command: "stop",
            content: "old",
            dropIns: [{ name: "10-proxy.conf", content: "p" }],
          },
          ...(RECONCILE.spec.units ?? []),
        ],
      },
    };
    const result = add(stale);
    assert.equal(result.spec.files?.[0]?.content.imageRef?.image, OPTIONS.image);
    assert.equal(result.spec.units?.[0]?.command, "start");
    assert.deepEqual(result.spec.units?.[0]?.dropIns, [{ name: "10-proxy.conf", content: "p" }]);
    assert.deepEqual(
      new Set(result.spec.files?.map((file) => file.path)),
      new Set(add(RECONCILE).spec.files?.map((file) => file.path)),
    );
  });

  it("does not touch the object it is given", () => {
    const copy = structuredClone(RECONCILE);
    addSpegel(RECONCILE, NODE);
    assert.deepEqual(RECONCILE, copy);
  });
});

const upstream = fc.constantFrom("_default", "ghcr.io", "docker.io", "10.0.0.1:5000", "quay.io");
const capability = fc.constantFrom("pull" as const, "resolve" as const, "push" as const);
const host = fc.record(
  {
    url: fc.constantFrom(
      "http://localhost:5000",
      "http://localhost:15500",
      "https://a.example",
      "http://b:1",
    ),
    capabilities: fc.uniqueArray(capability),
    overridePath: fc.boolean(),
    "x-unknown": fc.jsonValue(),
  },
  { requiredKeys: ["url"] },
);
const registry = fc.record(
  {
    upstream,
    hosts: fc.option(fc.uniqueArray(host, { selector: (each) => each.url })),
    readinessProbe: fc.boolean(),
    server: fc.constant("https://up.example"),
    "x-unknown": fc.jsonValue(),
  },
  { requiredKeys: ["upstream"] },
);
const plugin = fc.record(
  {
    op: fc.constantFrom("add" as const, "remove" as const),
    path: fc.constantFrom(
      ["io.containerd.grpc.v1.cri", "containerd"],
      ["io.containerd.cri.v1.images"],
      ["other"],
    ),
    values: fc.dictionary(fc.constantFrom("discard_unpacked_layers", "a", "b"), fc.jsonValue()),
  },
  { requiredKeys: ["path"] },
);
const file = fc.record({
  path: fc.constantFrom("/opt/bin/spegel", "/opt/bin/kubelet", "/var/lib/spegel/certs/tls.key", "/a", "/b"),
  content: fc.constant({ inline: { encoding: "" as const, data: "x" } }),
});
const unit = fc.record(
  {
    name: fc.constantFrom("spegel.service", "kubelet.service", "spegel-metrics.service", "a.service"),
    content: fc.constantFrom("[Service]\n", "ExecStart=/opt/bin/spegel registry --registry-addr=:15500"),
    "x-unknown": fc.jsonValue(),
  },
  { requiredKeys: ["name"] },
);
const osc = fc
  .record({
    files: fc.option(fc.uniqueArray(file, { selector: (each) => each.path })),
    units: fc.option(fc.uniqueArray(unit, { selector: (each) => each.name })),
    registries: fc.option(fc.uniqueArray(registry, { selector: (each) => each.upstream })),
    plugins: fc.option(fc.array(plugin)),
    unknown: fc.jsonValue(),
  })
  .map(({ files, units, registries, plugins, unknown }) => ({
    apiVersion: "extensions.gardener.cloud/v1alpha1",
    kind: "OperatingSystemConfig",
    metadata: { name: "pool", "x-unknown": unknown },
    spec: {
      type: "gardenlinux",
      purpose: "reconcile",
      files: files as File[] | null,
      units: units as Unit[] | null,
      inPlaceUpdates: unknown,
      criConfig: {
        name: "containerd",
        "x-unknown": unknown,
        containerd: { sandboxImage: "pause", registries, plugins, "x-unknown": unknown },
      },
    },
    "x-unknown": unknown,
  }));
const port = fc.constantFrom(5000, 15500, 7000);

describe("mutateOSC", () => {
  it("is a fixed point: what it changed once it does not change again", async () => {
    await fc.assert(
      fc.asyncProperty(osc, async (object) => {
        const once = await mutate(object);
        const again = await mutateOSC(
          once,
          { namespace: "n", loadContext: async () => CONTEXT, signal },
          OPTIONS,
        );
        assert.deepEqual(again, { kind: "change", patch: [] });
      }),
    );
  });

  it("is deterministic to the byte", async () => {
    await fc.assert(
      fc.asyncProperty(osc, async (object) => {
        const run = async (): Promise<string> => JSON.stringify(await mutate(structuredClone(object)));
        assert.equal(await run(), await run());
      }),
    );
  });

  it("gives what validation accepts, whatever valid object it gets and whichever port came before", () => {
    fc.assert(
      fc.property(osc, port, port, (object, before, after) => {
        const valid = object as unknown as OperatingSystemConfig;
        assert.deepEqual(validateOSC(valid), []);
        const old = addSpegel(valid, { ...NODE, registryPort: before });
        const result = add(old, { registryPort: after });
        for (const entry of registriesOf(result)) {
          assert.equal(entry.hosts?.[0]?.url, `http://localhost:${after}`);
          assert.equal(entry.hosts?.filter((each) => each.url === `http://localhost:${after}`).length, 1);
        }
      }),
    );
  });

  it("changes nothing but the four lists, and keeps foreign entries in their order", async () => {
    await fc.assert(
      fc.asyncProperty(osc, async (object) => {
        const result = (await mutate(object)) as typeof object;
        const strip = (each: typeof object): unknown => ({
          ...each,
          spec: {
            ...each.spec,
            files: 0,
            units: 0,
            criConfig: {
              ...each.spec.criConfig,
              containerd: { ...each.spec.criConfig.containerd, registries: 0, plugins: 0 },
            },
          },
        });
        assert.deepEqual(strip(result), strip(object));
        const names = (each: typeof object): string[] =>
          (each.spec.criConfig.containerd.registries ?? []).map((entry) => entry.upstream);
        assert.deepEqual(names(result).slice(0, names(object).length), names(object));
        for (const [index, each] of (object.spec.units ?? []).entries()) {
          const after = result.spec.units?.[index];
          assert.equal(after?.name, each.name);
          assert.deepEqual(
            (after as unknown as Record<string, unknown>)["x-unknown"],
            (each as unknown as Record<string, unknown>)["x-unknown"],
          );
        }
      }),
    );
  });

  it("patches only entries that change, and whole lists where they are absent, null or shorter", async () => {
    const patchOf = async (object: unknown): Promise<string[]> => {
      const mutation = await mutateOSC(
        object,
        { namespace: "n", loadContext: async () => CONTEXT, signal },
        OPTIONS,
      );
      assert.equal(mutation.kind, "change");
      return mutation.kind === "change" ? mutation.patch.map(({ op, path }) => `${op} ${path}`) : [];
    };
    assert.deepEqual(await patchOf(RECONCILE), [
      ...Array.from({ length: 7 }, () => "add /spec/files/-"),
      "add /spec/units/-",
      "add /spec/units/-",
      "replace /spec/criConfig/containerd/registries/0",
      "replace /spec/criConfig/containerd/registries/1",
      "add /spec/criConfig/containerd/registries/-",
      "add /spec/criConfig/containerd/plugins",
    ]);
    const bare = { ...RECONCILE, spec: { ...RECONCILE.spec, files: null, units: undefined } };
    assert.deepEqual((await patchOf(bare)).slice(0, 2), ["add /spec/files", "add /spec/units"]);
    const done = (await mutate(RECONCILE)) as OperatingSystemConfig;
    const withoutFile = { ...done, spec: { ...done.spec, files: done.spec.files?.slice(0, -1) } };
    assert.deepEqual(await patchOf(withoutFile), ["add /spec/files/-"]);
    const doubled = {
      ...done,
      spec: { ...done.spec, files: [...(done.spec.files ?? []), ...(done.spec.files ?? [])] },
    };
    assert.deepEqual(await patchOf(doubled), ["replace /spec/files"]);
  });

  it("gives a pool that is updated in place the same, and leaves its updates alone", async () => {
    const inPlaceUpdates = {
      operatingSystemVersion: "1877.4",
      kubeletVersion: "1.35.1",
      credentialsRotation: { certificateAuthorities: { lastInitiationTime: "2026-11-20T10:00:00Z" } },
    };
    // Its name has no hash: the object outlives versions and rotations.
    const pool = {
      ...RECONCILE,
      metadata: { ...RECONCILE.metadata, name: "gardener-node-agent-pool-original" },
      spec: { ...RECONCILE.spec, inPlaceUpdates },
    };
    const changed = (await mutate(pool)) as typeof pool;
    assert.deepEqual(changed.spec.inPlaceUpdates, inPlaceUpdates);
    const { inPlaceUpdates: _, ...spec } = changed.spec;
    assert.deepEqual(spec, ((await mutate(RECONCILE)) as typeof pool).spec);
    // Nodes stay when authorities rotate: new files have to reach the daemon by themselves.
    const rotated = addSpegel(changed, {
      ...NODE,
      clientSecretName: "client-2",
      caBundleSecretName: "bundle-2",
    });
    const files = rotated.spec.files?.filter(({ content }) => content.secretRef?.name.endsWith("-2"));
    assert.deepEqual(
      files?.map(({ path }) => unitOf(rotated, "spegel.service").filePaths?.includes(path)),
      [true, true, true],
    );
  });

  it("takes the image from the status, so that it changes with the Extension and not with the webhook", async () => {
    const image = "registry.example/spegel@sha256:4567";
    const context = { ...CONTEXT, extension: { status: { providerStatus: { ...STATUS, image } } } };
    const result = (await mutate(RECONCILE, context)) as OperatingSystemConfig;
    const executable = result.spec.files?.find((each) => each.path === "/opt/bin/spegel");
    assert.equal(executable?.content.imageRef?.image, image);
  });

  it("leaves objects alone that are not its own, without asking for their context", async () => {
    const provision = await readExample("osc-provision.yaml");
    const { criConfig } = RECONCILE.spec;
    const cases: [string, unknown][] = [
      ["its purpose is not reconcile", provision],
      [
        "the object is being deleted",
        {
          ...RECONCILE,
          metadata: { ...RECONCILE.metadata, deletionTimestamp: "2026-11-20T10:00:00Z" },
          spec: { files: 1 },
        },
      ],
      [
        "the worker pool has no criConfig",
        { ...RECONCILE, spec: { ...RECONCILE.spec, criConfig: undefined } },
      ],
      ["the worker pool has no criConfig", { ...RECONCILE, spec: { ...RECONCILE.spec, criConfig: null } }],
      [
        "the worker pool does not run containerd",
        { ...RECONCILE, spec: { ...RECONCILE.spec, criConfig: { ...criConfig, name: "docker" } } },
      ],
      [
        "the worker pool has no containerd configuration",
        { ...RECONCILE, spec: { ...RECONCILE.spec, criConfig: { name: "containerd" } } },
      ],
    ];
    for (const [reason, object] of cases) {
      const loadContext = (): never => assert.fail("the context was read");
      assert.deepEqual(await mutateOSC(object, { namespace: "n", loadContext, signal }, OPTIONS), {
        kind: "leave",
        reason,
      });
    }
  });

  it("decides by the Shoot and its Extension", async () => {
    const shoot = { metadata: {}, spec: {} };
    const seed = {};
    const selfHosted = { spec: { provider: { workers: [{}, { controlPlane: {} }] } } };
    const hibernated = { metadata: {}, spec: { hibernation: { enabled: true } } };
    const deleted = { metadata: { deletionTimestamp: "2026-11-20T10:00:00Z" } };
    const extension = CONTEXT.extension;
    const cases: [string, OSCContext | undefined][] = [
      ["leave: the namespace has no Cluster", undefined],
      ["leave: the Cluster has no Shoot", { cluster: { spec: { seed } }, extension }],
      ["leave: the Shoot is being deleted", { cluster: { spec: { shoot: deleted, seed } }, extension }],
      ["leave: the Cluster has no Shoot", { cluster: {}, extension }],
      ["leave: the Shoot is self-hosted", { cluster: { spec: { shoot, seed: null } }, extension }],
      ["leave: the Shoot is self-hosted", { cluster: { spec: { shoot: selfHosted, seed } }, extension }],
      ["leave: the Extension does not exist", { cluster: { spec: { shoot, seed } } }],
      [
        "leave: the Extension is being deleted",
        { cluster: { spec: { shoot, seed } }, extension: { ...extension, ...deleted } },
      ],
      ["leave: the Shoot is hibernated", { cluster: { spec: { shoot: hibernated, seed } }, extension: {} }],
      ["change", { cluster: { spec: { shoot: hibernated, seed } }, extension }],
      ["deny", { cluster: { spec: { shoot, seed } }, extension: { status: null } }],
      ["deny", { cluster: { spec: { shoot, seed } }, extension: { status: { providerStatus: null } } }],
      ["change", { cluster: { spec: { shoot, seed } }, extension }],
    ];
    for (const [expected, context] of cases) assert.equal(await reasonOf(RECONCILE, context), expected);
  });

  it("refuses a providerStatus that would not make a unit file", async () => {
    const broken: [RegExp, object][] = [
      [/bootstrapURL/, { bootstrapURL: "https://x.example/a\nExecStartPre=/bin/sh" }],
      [/bootstrapURL/, { bootstrapURL: "https://x.example/%h" }],
      [/bootstrapURL/, { bootstrapURL: "http://x.example/" }],
      [/clientSecretName/, { clientSecretName: "../other" }],
      [/image/, { image: "a b" }],
      [/registryPort/, { registryPort: 0 }],
      [/two of its ports are equal/, { registryPort: 9090 }],
      [/providerStatus/, { kind: "RegistryStatus" }],
    ];
    for (const [message, change] of broken) {
      const context = { ...CONTEXT, extension: { status: { providerStatus: { ...STATUS, ...change } } } };
      await assert.rejects(
        mutateOSC(RECONCILE, { namespace: "n", loadContext: async () => context, signal }, OPTIONS),
        (error: Error) =>
          message.test(error.message) && "code" in error && error.code === "OSC_STATUS_INVALID",
      );
    }
  });

  it("reads past what a newer version reports in the providerStatus", async () => {
    const mutate = (providerStatus: object): Promise<Mutation> => {
      const context = { ...CONTEXT, extension: { status: { providerStatus } } };
      return mutateOSC(RECONCILE, { namespace: "n", loadContext: async () => context, signal }, OPTIONS);
    };
    const wanted = await mutate(STATUS);
    assert.equal(wanted.kind, "change");
    assert.deepEqual(await mutate({ ...STATUS, memoryMax: "1K", later: { field: true } }), wanted);
  });

  it("names the field of an object that it cannot read", async () => {
    const spec = RECONCILE.spec;
    const containerd = { sandboxImage: "p" };
    const cases: [string, unknown][] = [
      ["object is not an object", null],
      ["object is not an object", [RECONCILE]],
      ["spec is not an object", { metadata: {} }],
      ["spec.criConfig is not an object", { spec: { ...spec, criConfig: "containerd" } }],
      ["spec.files is not a list", { spec: { ...spec, files: {} } }],
      ["spec.files[0] is not an object", { spec: { ...spec, files: [null] } }],
      ["spec.units[0].name is not a string", { spec: { ...spec, units: [{}] } }],
      [
        "spec.units[0].content is not a string",
        { spec: { ...spec, units: [{ name: "spegel.service", content: 1 }] } },
      ],
      [
        "spec.criConfig.containerd.registries[0].hosts[0].url is not a string",
        {
          spec: {
            ...spec,
            criConfig: {
              name: "containerd",
              containerd: { ...containerd, registries: [{ upstream: "a", hosts: [{}] }] },
            },
          },
        },
      ],
      [
        "spec.criConfig.containerd.plugins[0].path is not a list",
        {
          spec: { ...spec, criConfig: { name: "containerd", containerd: { ...containerd, plugins: [{}] } } },
        },
      ],
    ];
    for (const [message, object] of cases) {
      await assert.rejects(reasonOf(object, CONTEXT), { code: "OSC_OBJECT_INVALID", message });
    }
  });

  it("never fails in a way it has no code for, whatever JSON it gets", async () => {
    const anySpec = fc.record({
      purpose: fc.constant("reconcile"),
      files: fc.jsonValue(),
      units: fc.jsonValue(),
      criConfig: fc.record({
        name: fc.constant("containerd"),
        containerd: fc.oneof(
          fc.jsonValue(),
          fc.record({ registries: fc.jsonValue(), plugins: fc.jsonValue() }),
        ),
      }),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(fc.jsonValue(), fc.record({ metadata: fc.jsonValue(), spec: anySpec })),
        async (object) => {
          try {
            await reasonOf(object, CONTEXT);
          } catch (error) {
            assert.equal((error as { code?: string }).code, "OSC_OBJECT_INVALID", String(error));
          }
        },
      ),
    );
  });
});

describe("resolveOptions", () => {
  it("refuses options that would break a unit or the mirror", () => {
    for (const change of [
      { image: "" },
      { image: "a b" },
      { memoryHigh: "80 M" },
      { memoryMax: "100M\nExecStartPre=x" },
      { watchdogSeconds: -1 },
      { watchdogSeconds: 2.5 },
      { capabilities: [] },
      { capabilities: ["resolve" as const] },
      { capabilities: ["pull" as const, "push" as const] },
    ]) {
      assert.throws(() => resolveOptions({ image: "registry.example/spegel", ...change }), {
        code: "OSC_OPTIONS_INVALID",
      });
    }
  });
});

// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { parse as parseTOML } from "smol-toml";
import { parse } from "yaml";
import { decodeSpegelConfig } from "#admission";
import type { OperatingSystemConfig, RegistryConfig } from "#api/gardener";
import { addSpegel, type NodeSettings, resolveOptions } from "#osc";
import { applyOSC, type NodeOptions, patchContainerdConfig, renderHostsToml, validateOSC } from "./index.ts";

async function readExample<T = OperatingSystemConfig>(name: string): Promise<T> {
  return parse(await readFile(new URL(`../../../example/${name}`, import.meta.url), "utf8")) as T;
}

const ORIGINAL = await readExample("osc-reconcile.yaml");
const NODE: NodeSettings = {
  ...resolveOptions({ image: "registry.example/spegel@sha256:0123" }),
  bootstrapURL: "https://spegel-foo--bar.ingress.example/bootstrap-nodes",
  caBundleSecretName: "bundle",
  clientSecretName: "client-1",
  registryPort: 5000,
  routerPort: 5001,
  metricsPort: 9090,
};
const SECRETS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  "ca-kubelet-bundle": { "bundle.crt": "kubelet CA" },
  "ca-extension-registry-cache-bundle": { "bundle.crt": "cache CA" },
  bundle: { "bundle.crt": "CA 1\n" },
  "client-1": { "tls.crt": "certificate 1\n", "tls.key": "key 1\n" },
  "client-2": { "tls.crt": "certificate 2\n", "tls.key": "key 2\n" },
};

let root: string;
let options: NodeOptions;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "node-"));
  options = {
    root,
    resolveSecret: async (name) => SECRETS[name],
    extractImageFile: async (image, path) => Buffer.from(`${image} ${path}`),
  };
});

afterEach(() => rm(root, { recursive: true }));

function mutated(change: Partial<NodeSettings> = {}): OperatingSystemConfig {
  const osc = addSpegel(ORIGINAL, { ...NODE, ...change });
  assert.deepEqual(validateOSC(osc), []);
  return osc;
}

function withRegistries(
  osc: OperatingSystemConfig,
  registries: readonly RegistryConfig[],
): OperatingSystemConfig {
  const { criConfig } = osc.spec;
  assert.ok(criConfig?.containerd);
  return {
    ...osc,
    spec: { ...osc.spec, criConfig: { ...criConfig, containerd: { ...criConfig.containerd, registries } } },
  };
}

const text = (path: string): Promise<string> => readFile(join(root, path), "utf8");
const modeOf = async (path: string): Promise<string> =>
  ((await stat(join(root, path))).mode & 0o777).toString(8);

describe("the examples", () => {
  it("are valid", async () => {
    assert.deepEqual(validateOSC(ORIGINAL), []);
    assert.deepEqual(validateOSC(await readExample("osc-provision.yaml")), []);
    const { ports, warnings } = decodeSpegelConfig(await readExample<unknown>("spegelconfig.yaml"));
    assert.deepEqual([ports, warnings], [{ registryPort: 5000, routerPort: 5001, metricsPort: 9090 }, []]);
  });
});

describe("applyOSC", () => {
  it("writes files with their modes, secrets and image files resolved", async () => {
    await applyOSC(mutated(), options);
    assert.equal(await text("/opt/bin/spegel"), "registry.example/spegel@sha256:0123 /spegel");
    assert.equal(await modeOf("/opt/bin/spegel"), "755");
    assert.equal(await text("/var/lib/spegel/certs/ca.crt"), "CA 1\n");
    assert.equal(await text("/var/lib/spegel/certs/tls.key"), "key 1\n");
    assert.equal(await modeOf("/var/lib/spegel/certs/tls.key"), "600");
    assert.equal(await modeOf("/var/lib/spegel/certs/tls.crt"), "644");
    assert.match(await text("/opt/bin/spegel_metrics.sh"), /^#!\/bin\/sh\n/);
    assert.equal(await text("/var/lib/kubelet/config/kubelet"), "kind: KubeletConfiguration\n");
    assert.match(await text("/etc/systemd/system/spegel.service"), /ExecStart=\/opt\/bin\/spegel registry/);
    assert.equal(await modeOf("/etc/systemd/system/spegel.service"), "600");
    assert.match(await text("/etc/systemd/system/containerd.service.d/11-exec_config.conf"), /ExecStartPre/);
  });

  it("writes hosts.toml to the byte", async () => {
    await applyOSC(mutated(), options);
    assert.equal(
      await text("/etc/containerd/certs.d/_default/hosts.toml"),
      '# managed by gardener-node-agent\n[host."http://localhost:5000"]\n  capabilities = ["pull","resolve"]\n\n',
    );
    assert.equal(
      await text("/etc/containerd/certs.d/ghcr.io/hosts.toml"),
      [
        "# managed by gardener-node-agent",
        'server = "https://ghcr.io"',
        "",
        '[host."http://localhost:5000"]',
        '  capabilities = ["pull","resolve"]',
        "",
        '[host."https://10.4.246.205:5000"]',
        '  capabilities = ["pull","resolve"]',
        '  ca = ["/etc/containerd/certs.d/ca-bundle.pem"]',
        "",
        "",
      ].join("\n"),
    );
  });

  it("starts everything at first, and does nothing the second time", async () => {
    const first = await applyOSC(mutated(), options);
    assert.equal(first.restartsContainerd, true);
    assert.deepEqual(first.restartedUnits, [
      "containerd.service",
      "kubelet.service",
      "spegel.service",
      "spegel-metrics.service",
    ]);
    assert.deepEqual(await applyOSC(mutated(), options), {
      changedFiles: [],
      removedFiles: [],
      restartedUnits: [],
      stoppedUnits: [],
      changedRegistries: [],
      removedRegistries: [],
      restartsContainerd: false,
    });
  });

  it("restarts containerd once when spegel comes to a running node, and no kubelet", async () => {
    await applyOSC(ORIGINAL, options);
    const applied = await applyOSC(mutated(), options);
    assert.equal(applied.restartsContainerd, true);
    assert.deepEqual(applied.restartedUnits, ["spegel.service", "spegel-metrics.service"]);
    assert.deepEqual(applied.changedRegistries, ["ghcr.io", "docker.io", "_default"]);
  });

  it("restarts spegel alone for a new port, certificate or image", async () => {
    await applyOSC(mutated(), options);
    const port = await applyOSC(mutated({ registryPort: 15500 }), options);
    assert.deepEqual([port.restartedUnits, port.restartsContainerd], [["spegel.service"], false]);
    assert.deepEqual(port.changedRegistries, ["ghcr.io", "docker.io", "_default"]);
    const certificate = await applyOSC(
      mutated({ registryPort: 15500, clientSecretName: "client-2" }),
      options,
    );
    assert.deepEqual(certificate.restartedUnits, ["spegel.service"]);
    assert.deepEqual(certificate.changedFiles, [
      "/var/lib/spegel/certs/tls.crt",
      "/var/lib/spegel/certs/tls.key",
    ]);
    const image = await applyOSC(
      mutated({
        registryPort: 15500,
        clientSecretName: "client-2",
        image: "registry.example/spegel@sha256:4567",
      }),
      options,
    );
    assert.deepEqual(image.changedFiles, [
      "/opt/bin/spegel",
      "/opt/bin/lib/libgcc_s.so.1",
      "/opt/bin/lib/libstdc++.so.6",
    ]);
    assert.deepEqual(image.restartedUnits, ["spegel.service"]);
    const metrics = await applyOSC(
      mutated({
        registryPort: 15500,
        clientSecretName: "client-2",
        image: "registry.example/spegel@sha256:4567",
        metricsPort: 19090,
      }),
      options,
    );
    assert.deepEqual(metrics.restartedUnits, ["spegel.service", "spegel-metrics.service"]);
  });

  it("restarts nothing when another extension adds a registry", async () => {
    await applyOSC(mutated(), options);
    const { criConfig } = ORIGINAL.spec;
    const registries = [
      ...(criConfig?.containerd?.registries ?? []),
      { upstream: "quay.io", server: "https://quay.io" },
    ];
    const applied = await applyOSC(addSpegel(withRegistries(ORIGINAL, registries), NODE), options);
    assert.deepEqual([applied.restartedUnits, applied.restartsContainerd], [[], false]);
    assert.deepEqual(applied.changedRegistries, ["quay.io"]);
  });

  it("takes away what is no longer there", async () => {
    await applyOSC(mutated(), options);
    const applied = await applyOSC(ORIGINAL, options);
    assert.deepEqual(applied.stoppedUnits, ["spegel.service", "spegel-metrics.service"]);
    assert.deepEqual(applied.removedRegistries, ["_default"]);
    assert.equal(applied.removedFiles.length, 7);
    assert.equal(applied.restartsContainerd, true);
    for (const path of [
      "/opt/bin/spegel",
      "/opt/bin/lib/libstdc++.so.6",
      "/var/lib/spegel/certs/tls.key",
      "/etc/systemd/system/spegel.service",
      "/etc/containerd/certs.d/_default",
    ]) {
      await assert.rejects(stat(join(root, path)), { code: "ENOENT" });
    }
    assert.doesNotMatch(await text("/etc/containerd/certs.d/ghcr.io/hosts.toml"), /localhost/);
  });

  it("does not touch units when an image cannot be read", async () => {
    const extractImageFile = (): Promise<never> => Promise.reject(new Error("429 Too Many Requests"));
    await assert.rejects(applyOSC(mutated(), { ...options, extractImageFile }), /429/);
    await assert.rejects(stat(join(root, "/etc/systemd/system/kubelet.service")), { code: "ENOENT" });
    assert.equal((await applyOSC(mutated(), options)).restartedUnits.length, 4);
  });

  it("fails when a Secret is gone", async () => {
    await assert.rejects(
      applyOSC(mutated({ clientSecretName: "gone" }), options),
      /secret gone has no tls.crt/,
    );
  });

  it("withholds a probed hosts.toml while spegel does not answer, but not the default one", async () => {
    const probe = async (url: string): Promise<boolean> => !url.includes("localhost");
    await assert.rejects(
      applyOSC(mutated(), { ...options, probe }),
      /ghcr.io: http:\/\/localhost:5000 does not answer/,
    );
    await assert.rejects(text("/etc/containerd/certs.d/ghcr.io/hosts.toml"), { code: "ENOENT" });
    assert.match(await text("/etc/containerd/certs.d/_default/hosts.toml"), /localhost/);
    assert.match(await text("/etc/systemd/system/kubelet.service"), /kubelet/);
  });
});

describe("patchContainerdConfig", () => {
  const { criConfig } = mutated().spec;
  assert.ok(criConfig?.containerd);
  const { containerd } = criConfig;

  /** The value at a path below `plugins` of a configuration. */
  function pluginValue(config: string, ...path: string[]): unknown {
    return path.reduce<unknown>(
      (table, key) => (typeof table === "object" && table !== null ? Reflect.get(table, key) : undefined),
      parseTOML(config)["plugins"],
    );
  }

  it("puts the settings where containerd 1.7 reads them", () => {
    const cri = "io.containerd.grpc.v1.cri";
    const config = patchContainerdConfig(
      `version = 2\n[plugins."${cri}"]\nkeep = 1\n`,
      criConfig,
      containerd,
    );
    assert.equal(pluginValue(config, cri, "containerd", "discard_unpacked_layers"), false);
    assert.equal(pluginValue(config, cri, "registry", "config_path"), "/etc/containerd/certs.d");
    const runc = ["containerd", "runtimes", "runc", "options", "SystemdCgroup"];
    assert.equal(pluginValue(config, cri, ...runc), true);
    assert.equal(pluginValue(config, cri, "keep"), 1);
  });

  it("puts the settings where containerd 2 reads them", () => {
    const images = "io.containerd.cri.v1.images";
    const config = patchContainerdConfig("version = 3\n", criConfig, containerd);
    assert.equal(pluginValue(config, images, "discard_unpacked_layers"), false);
    assert.equal(pluginValue(config, images, "registry", "config_path"), "/etc/containerd/certs.d");
    assert.equal(pluginValue(config, images, "pinned_images", "sandbox"), "registry.example/pause:3.10");
  });

  it("moves runtimes to their table of version 3, and nothing else", () => {
    const path = ["io.containerd.grpc.v1.cri", "containerd", "runtimes", "gvisor"];
    const plugins = [{ path, values: { runtime_type: "runsc" } }];
    const config = patchContainerdConfig("version = 3", criConfig, { sandboxImage: "p", plugins });
    const runtimes = ["io.containerd.cri.v1.runtime", "containerd", "runtimes"];
    assert.equal(pluginValue(config, ...runtimes, "gvisor", "runtime_type"), "runsc");
    assert.equal(pluginValue(config, "io.containerd.grpc.v1.cri"), undefined);
  });

  it("drops a removed table and changes nothing the second time", () => {
    const changed = { sandboxImage: "p", plugins: [{ op: "remove" as const, path: ["a", "b"] }] };
    const once = patchContainerdConfig("[plugins.a.b]\nx = 1\n[plugins.a.c]\ny = 1\n", criConfig, changed);
    assert.equal(pluginValue(once, "a", "b"), undefined);
    assert.equal(pluginValue(once, "a", "c", "y"), 1);
    assert.equal(patchContainerdConfig(once, criConfig, changed), once);
  });

  it("refuses a version it does not know", () => {
    assert.throws(() => patchContainerdConfig("version = 9", criConfig, containerd), /version 9/);
  });
});

describe("renderHostsToml", () => {
  it("writes override_path only when it is set", () => {
    const hosts = [
      { url: "https://a.example/v2/x", overridePath: true },
      { url: "https://b.example", overridePath: false },
    ];
    assert.equal(
      renderHostsToml({ upstream: "a", hosts }),
      '# managed by gardener-node-agent\n[host."https://a.example/v2/x"]\n  capabilities = ["pull","resolve"]\n  override_path = true\n\n' +
        '[host."https://b.example"]\n  capabilities = ["pull","resolve"]\n\n',
    );
  });
});

describe("validateOSC", () => {
  it("finds what Gardener would refuse", () => {
    const { spec } = ORIGINAL;
    const cases: [string, object][] = [
      ["spec.type: required", { type: "" }],
      ["spec.criConfig.containerd: forbidden for purpose provision", { purpose: "provision" }],
      ["spec.units[0].filePaths[0]: no file /opt/bin/init-containerd", { files: spec.files?.slice(1) }],
      ["spec.files[5].path: duplicate", { files: [...(spec.files ?? []), spec.files?.[0]] }],
      [
        "spec.files[5].path: not absolute",
        {
          files: [
            ...(spec.files ?? []),
            { path: "x", content: { imageRef: { image: "a", filePathInImage: "b" } } },
          ],
        },
      ],
      [
        "spec.files[5].content: exactly one of inline, secretRef, imageRef",
        { files: [...(spec.files ?? []), { path: "/x", content: {} }] },
      ],
      [
        "spec.files[5].content.inline.data: required",
        { files: [...(spec.files ?? []), { path: "/x", content: { inline: { encoding: "", data: "" } } }] },
      ],
      ["spec.units[2].name: duplicate", { units: [...(spec.units ?? []), { name: "kubelet.service" }] }],
    ];
    for (const [problem, change] of cases) {
      assert.deepEqual(validateOSC({ ...ORIGINAL, spec: { ...spec, ...change } } as OperatingSystemConfig), [
        problem,
      ]);
    }
    const registries: [string, RegistryConfig[]][] = [
      ["registries[0].upstream: no host[:port]", [{ upstream: "https://a" }]],
      ["registries[1].upstream: duplicate", [{ upstream: "a" }, { upstream: "a" }]],
      ["registries[0].server: not a URL", [{ upstream: "a", server: "a" }]],
      ["registries[0].hosts[0].url: not a URL", [{ upstream: "a", hosts: [{ url: "ftp://x" }] }]],
      [
        "registries[0].hosts[1].url: duplicate",
        [{ upstream: "a", hosts: [{ url: "http://x" }, { url: "http://x" }] }],
      ],
      [
        "registries[0].hosts[0].caCerts: not absolute",
        [{ upstream: "a", hosts: [{ url: "http://x", caCerts: ["a"] }] }],
      ],
    ];
    for (const [problem, list] of registries) {
      assert.deepEqual(validateOSC(withRegistries(ORIGINAL, list)), [`spec.criConfig.containerd.${problem}`]);
    }
  });
});

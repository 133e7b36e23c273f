// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import fc from "fast-check";
import { type RegistryConfiguration, registrySchema, validateRegistryConfiguration } from "#api/config";
import {
  ConfigError,
  choice,
  createDecoder,
  flag,
  integer,
  list,
  loadSettings,
  parseDuration,
  parseFlags,
  type SettingsSchema,
  text,
  usage,
} from "./index.ts";

const schema = { properties: registrySchema.properties, validate: validateRegistryConfiguration };
const load = (argv: string[], environment: Record<string, string> = {}) =>
  loadSettings<RegistryConfiguration>(schema, { argv, environment });

async function problemsOf(argv: string[], environment: Record<string, string> = {}): Promise<string[]> {
  try {
    await load(argv, environment);
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error.problems.map((problem) => `${problem.path}: ${problem.message}`);
  }
  return assert.fail("the settings were accepted");
}

describe("loadSettings", () => {
  it("takes flags before environment before file before defaults", async () => {
    const directory = await mkdtemp(join(tmpdir(), "settings-"));
    try {
      const file = join(directory, "config.yaml");
      await writeFile(file, "bootstrapKind: dns\nregistryAddr: ':1'\nrouterAddr: ':2'\nmetricsAddr: ':3'\n");
      const settings = await load(["--config", file, "--registry-addr=:10"], {
        REGISTRY_ADDR: ":20",
        ROUTER_ADDR: ":21",
      });
      assert.equal(settings.registryAddr, ":10");
      assert.equal(settings.routerAddr, ":21");
      assert.equal(settings.metricsAddr, ":3");
      assert.equal(settings.mirrorResolveTimeout, "20ms");
      assert.ok(Object.isFrozen(settings));
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  it("reads the forms of Spegel v0.7.4", async () => {
    const settings = await load([
      "--log-level=debug",
      "--mirror-resolve-retries",
      "5",
      "--mirrored-registries",
      "https://docker.io",
      "https://quay.io",
      "--debug-web-enabled=false",
      "--bootstrap-kind=http",
      "--http-bootstrap-peer=http://10.0.0.1:5002",
    ]);
    assert.equal(settings.logLevel, "DEBUG");
    assert.equal(settings.mirrorResolveRetries, 5);
    assert.deepEqual(settings.mirroredRegistries, ["https://docker.io", "https://quay.io"]);
    assert.equal(settings.debugWebEnabled, false);
    assert.equal(settings.httpBootstrapPeer, "http://10.0.0.1:5002");
  });

  it("reads lists from the environment as comma-separated values", async () => {
    const settings = await load([], { BOOTSTRAP_KIND: "static", REGISTRY_FILTERS: "a:latest$, b" });
    assert.deepEqual(settings.registryFilters, ["a:latest$", "b"]);
  });

  it("names each wrong setting by where it was written", async () => {
    assert.match(
      (await problemsOf([])).join("\n"),
      /^bootstrapKind: is required; one of dns, http, static, kubernetes$/,
    );
    assert.match(
      (await problemsOf(["--bootstrap-kind=p2p"]))[0] ?? "",
      /^--bootstrap-kind: "p2p" is not valid; one of dns/,
    );
    const both = await problemsOf(["--bootstrap-kind=dns", "--registry-addr=5000"], {
      MIRROR_RESOLVE_TIMEOUT: "20",
    });
    assert.equal(both.length, 2);
    assert.match(both.join("\n"), /--registry-addr: "5000"/);
    assert.match(both.join("\n"), /MIRROR_RESOLVE_TIMEOUT: "20"/);
  });

  it("refuses unknown flags, stray words and wrong types", async () => {
    assert.match((await problemsOf(["--registry-port=1"]))[0] ?? "", /^--registry-port: is not a known flag/);
    assert.match((await problemsOf(["run"]))[0] ?? "", /^run: is not a flag/);
    assert.match((await problemsOf(["--mirror-resolve-retries=many"]))[0] ?? "", /not a whole number/);
    assert.match((await problemsOf(["--debug-web-enabled=perhaps"]))[0] ?? "", /neither true nor false/);
    assert.match((await problemsOf(["--registry-addr"]))[0] ?? "", /^--registry-addr: needs a value/);
  });

  it("refuses files that are absent, no YAML, no mapping or have unknown keys", async () => {
    const directory = await mkdtemp(join(tmpdir(), "settings-"));
    try {
      const file = join(directory, "config.yaml");
      assert.match((await problemsOf(["--config", file]))[0] ?? "", /config.yaml: cannot be read/);
      await writeFile(file, "a: [");
      assert.match((await problemsOf(["--config", file]))[0] ?? "", /is not valid YAML/);
      await writeFile(file, "- a");
      assert.match((await problemsOf(["--config", file]))[0] ?? "", /is not a YAML mapping/);
      await writeFile(file, "bootstrapKind: dns\nregistryPort: 5000");
      assert.match((await problemsOf(["--config", file]))[0] ?? "", /^registryPort: is not a known setting/);
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  it("never throws anything but a ConfigError, whatever the arguments", () => {
    fc.assert(
      fc.property(fc.array(fc.string()), (argv) => {
        try {
          parseFlags(registrySchema.properties, argv);
        } catch (error) {
          assert.ok(error instanceof ConfigError);
        }
      }),
    );
  });

  it("explains every setting in its help text", () => {
    const text = usage("spegel registry", registrySchema.properties);
    assert.match(
      text,
      /--mirror-resolve-timeout STRING\n.*\[default: 20ms\] \[env: MIRROR_RESOLVE_TIMEOUT\]/,
    );
  });
});

describe("loadSettings without a compiled schema", () => {
  interface Limits {
    readonly low: number;
    readonly high?: number;
    readonly mode: string;
    readonly name?: string;
  }
  const properties = {
    low: integer("The least.", { default: 1, minimum: 0, maximum: 9 }),
    high: integer("The most."),
    mode: choice("How.", ["fast", "slow"], "fast"),
    name: text("Of whom."),
    isLoud: flag("Loud.", false),
    words: list("What.", ["a"]),
  };
  const read = (argv: string[], more: Partial<SettingsSchema<Limits>> = {}) =>
    loadSettings<Limits>({ properties, ...more }, { argv, environment: {} });

  it("holds settings to their words: names, types, choices and bounds", async () => {
    assert.deepEqual(
      { ...(await read(["--high=9"])) },
      { low: 1, high: 9, mode: "fast", isLoud: false, words: ["a"] },
    );
    for (const [argument, says] of [
      ["--low=10", /^--low: must be between 0 and 9$/],
      ["--low=-1", /^--low: must be between 0 and 9$/],
      ["--low=1.5", /^--low: /],
      ["--low=x", /^--low: /],
      ["--mode=idle", /^--mode: "idle" is not valid; one of fast, slow/],
      ["--nope=1", /^--nope: /],
    ] as const) {
      await assert.rejects(read([argument]), { name: "ConfigError", message: says }, argument);
    }
  });

  it("completes them, then judges what they mean together, then freezes them", async () => {
    const schema: Partial<SettingsSchema<Limits>> = {
      complete: async (settings) => ({ ...settings, name: settings.name ?? "nobody" }),
      judge: ({ low, high = 9, name }) => [
        ...(low > high ? [{ path: "--high", message: `must not be below ${low}` }] : []),
        ...(name === "nobody" ? [] : [{ path: "--name", message: "must be nobody" }]),
      ],
    };
    const settings = await read(["--low=5"], schema);
    assert.equal(settings.name, "nobody");
    assert.ok(Object.isFrozen(settings));
    await assert.rejects(read(["--low=5", "--high=4", "--name=me"], schema), {
      code: "CONFIG_INVALID",
      message: "--high: must not be below 5; --name: must be nobody",
    });
    await assert.rejects(read(["--low=50", "--name=me"], schema), {
      message: /^--low: must be between 0 and 9; --high: .*; --name: must be nobody$/,
    });
    await assert.rejects(read(["--low=50", "--mode=idle"], schema), {
      message: /^--mode: "idle"[^;]*; one of/,
    });
  });
});

describe("parseDuration", () => {
  it("reads Go's syntax", () => {
    assert.equal(parseDuration("20ms"), 20);
    assert.equal(parseDuration("1m30.5s"), 90_500);
  });

  it("refuses anything else", () => {
    for (const text of ["", "20", "ms", "1s 2s", "-1s", "1d"])
      assert.throws(() => parseDuration(text), ConfigError);
  });
});

describe("createDecoder", () => {
  const decode = createDecoder<{ port: number }>({
    type: "object",
    additionalProperties: false,
    properties: { port: { type: "integer", minimum: 1, maximum: 65535, default: 5000 } },
  });

  it("fills in defaults without touching the input", () => {
    const input = {};
    assert.deepEqual(decode(input, "providerConfig"), { port: 5000 });
    assert.deepEqual(input, {});
  });

  it("reports all problems with their paths", () => {
    assert.throws(
      () => decode({ port: 0, ports: 1 }, "providerConfig"),
      (error: ConfigError) =>
        error.problems
          .map((problem) => problem.path)
          .sort()
          .join() === "providerConfig.port,providerConfig.ports",
    );
  });
});

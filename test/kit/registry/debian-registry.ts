// SPDX-License-Identifier: Apache-2.0
import { access, constants, writeFile } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { startProcess } from "../process/index.ts";
import type { Backend } from "./backend.ts";
import { RegistryError } from "./errors.ts";

const COMMAND = "docker-registry";

/** True when the package `docker-registry` put its program on the path. */
export async function isDebianRegistryInstalled(): Promise<boolean> {
  return (await findCommand()) !== undefined;
}

async function findCommand(): Promise<string | undefined> {
  for (const folder of (process.env["PATH"] ?? "").split(delimiter)) {
    const path = join(folder, COMMAND);
    if (
      await access(path, constants.X_OK).then(
        () => true,
        () => false,
      )
    )
      return path;
  }
  return undefined;
}

/**
 * Starts Debian's registry over an empty folder, with a configuration of its own: the packaged one asks for a
 * password file.
 *
 * @throws RegistryError REGISTRY_NOT_INSTALLED; ProcessError when it ends at once
 */
export async function startDebianRegistry(options: {
  readonly directory: string;
  readonly signal: AbortSignal;
}): Promise<Backend> {
  const { directory, signal } = options;
  const command = await findCommand();
  if (command === undefined) {
    throw new RegistryError({ code: "REGISTRY_NOT_INSTALLED", message: `${COMMAND} is not on the path` });
  }
  const configuration = join(directory, "docker-registry.json");
  await writeFile(configuration, configurationFor(join(directory, "store")));
  const running = await startProcess({
    name: COMMAND,
    command,
    args: ["serve", configuration],
    // No variable of the caller may change the configuration, and nothing is traced anywhere.
    env: { OTEL_TRACES_EXPORTER: "none" },
    ready: { kind: "line", pattern: LISTENING },
    signal,
  });
  const line = running.output.lines.find((each) => LISTENING.test(each.text));
  const port = LISTENING.exec(line?.text ?? "")?.[1];
  return {
    origin: `http://127.0.0.1:${port}`,
    name: COMMAND,
    async [Symbol.asyncDispose]() {
      await running.stop();
    },
  };
}

const LISTENING = /listening on 127\.0\.0\.1:([0-9]+)/;

// JSON is YAML. Port 0: the log tells which one it became.
function configurationFor(store: string): string {
  return JSON.stringify({
    version: "0.1",
    log: { level: "info", formatter: "json", accesslog: { disabled: true } },
    storage: { cache: { blobdescriptor: "inmemory" }, filesystem: { rootdirectory: store } },
    http: { addr: "127.0.0.1:0", secret: "not-a-secret", relativeurls: true },
  });
}

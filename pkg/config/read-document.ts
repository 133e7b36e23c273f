// SPDX-License-Identifier: Apache-2.0
import { readFile } from "node:fs/promises";
import { errorMessage } from "#errors";
import { ConfigError } from "./errors.ts";

const MAX_FILE_BYTES = 1024 * 1024;

/**
 * Reads a file of one YAML or JSON document; undefined or null when it is empty.
 *
 * @throws ConfigError CONFIG_FILE_UNREADABLE with the path
 */
export async function readDocument(path: string): Promise<unknown> {
  const unreadable = (message: string, cause?: unknown): ConfigError =>
    new ConfigError({ code: "CONFIG_FILE_UNREADABLE", problems: [{ path, message }], cause });
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    throw unreadable("cannot be read", error);
  }
  if (text.length > MAX_FILE_BYTES) throw unreadable(`is larger than ${MAX_FILE_BYTES} bytes`);
  // Loaded only when a file is given: it costs memory that the daemon does not have to spare.
  const { parse } = await import("yaml");
  try {
    return parse(text, { maxAliasCount: 0 });
  } catch (error) {
    throw unreadable(`is not valid YAML or JSON (${errorMessage(error).split("\n")[0]})`, error);
  }
}

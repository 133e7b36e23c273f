// SPDX-License-Identifier: Apache-2.0
import { createHash } from "node:crypto";
import type { Disk } from "./disk.ts";

/**
 * What earlier runs wrote, so that a later one can tell its own files from those that people put there since.
 * Kept beside `_backup`; containerd looks for no such name.
 */
export interface GeneratedRecord {
  readonly version: 1;
  /** Mirror targets that generated files name. */
  readonly targets: readonly string[];
  /** sha256 (hex) of each text that this path has held or is about to hold. */
  readonly files: Readonly<Record<string, readonly string[]>>;
}

export const RECORD_NAME = "_spegel.json";

const RECORD_MODE = 0o600;

/** The record, or undefined when there is none or it is damaged: files are then told apart by their form. */
export async function readRecord(disk: Disk, path: string): Promise<GeneratedRecord | undefined> {
  const text = await disk.readText(path);
  if (text === undefined) return undefined;
  try {
    const document: unknown = JSON.parse(text);
    return isRecord(document) ? document : undefined;
  } catch {
    return undefined;
  }
}

export async function writeRecord(disk: Disk, path: string, record: GeneratedRecord): Promise<void> {
  const text = `${JSON.stringify(record, null, 2)}\n`;
  if ((await disk.readText(path)) !== text) await disk.write(path, text, RECORD_MODE);
}

/** The texts about to be written, and everything that `before` names. */
export function extendRecord(before: GeneratedRecord | undefined, next: GeneratedRecord): GeneratedRecord {
  if (before === undefined) return next;
  const paths = [...new Set([...Object.keys(before.files), ...Object.keys(next.files)])].sort();
  const files = paths.map((path) => {
    const hashes = [...(before.files[path] ?? []), ...(next.files[path] ?? [])];
    return [path, [...new Set(hashes)].sort()] as const;
  });
  return {
    version: 1,
    targets: [...new Set([...before.targets, ...next.targets])].sort(),
    files: Object.fromEntries(files),
  };
}

export function hashText(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

function isRecord(document: unknown): document is GeneratedRecord {
  if (typeof document !== "object" || document === null) return false;
  const { version, targets, files } = document as Partial<Record<keyof GeneratedRecord, unknown>>;
  const isStrings = (value: unknown): boolean =>
    Array.isArray(value) && value.every((each) => typeof each === "string");
  if (version !== 1 || !isStrings(targets) || typeof files !== "object" || files === null) return false;
  return Object.values(files).every(isStrings);
}

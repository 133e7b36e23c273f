// SPDX-License-Identifier: Apache-2.0
/** One entry of a layer. Paths have no leading slash; parents must come first. */
export type TarEntry =
  | { readonly kind: "directory"; readonly path: string; readonly mode?: number }
  | { readonly kind: "file"; readonly path: string; readonly mode?: number; readonly content: Uint8Array };

const BLOCK_BYTES = 512;

/** A POSIX ustar archive of these entries, the same bytes for the same entries: owner 0, time 0, given order. */
export function createTar(entries: readonly TarEntry[]): Buffer {
  const blocks: Uint8Array[] = [];
  for (const entry of entries) {
    const content = entry.kind === "file" ? entry.content : new Uint8Array(0);
    blocks.push(header(entry, content.length), content, Buffer.alloc(padding(content.length)));
  }
  blocks.push(Buffer.alloc(2 * BLOCK_BYTES));
  return Buffer.concat(blocks);
}

/** How many zeros follow so that the next header starts at a block. */
function padding(sizeBytes: number): number {
  return (BLOCK_BYTES - (sizeBytes % BLOCK_BYTES)) % BLOCK_BYTES;
}

function header(entry: TarEntry, sizeBytes: number): Buffer {
  const path = entry.kind === "directory" ? `${entry.path}/` : entry.path;
  if (Buffer.byteLength(path) > 100) throw new Error(`path of more than 100 bytes: ${path}`);
  if (sizeBytes >= 8 ** 11) throw new Error(`file of 8 GiB or more: ${path}`);
  const block = Buffer.alloc(BLOCK_BYTES);
  const octal = (value: number, offset: number, length: number): void => {
    block.write(`${value.toString(8).padStart(length - 1, "0")}\0`, offset, "ascii");
  };
  block.write(path, 0, "utf8");
  octal(entry.mode ?? (entry.kind === "directory" ? 0o755 : 0o644), 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  octal(sizeBytes, 124, 12);
  octal(0, 136, 12);
  block.write("        ", 148, "ascii"); // the checksum counts itself as blanks
  block.write(entry.kind === "directory" ? "5" : "0", 156, "ascii");
  block.write("ustar\x0000", 257, "latin1");
  octal(0, 329, 8);
  octal(0, 337, 8);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "ascii");
  return block;
}

// SPDX-License-Identifier: Apache-2.0
import { createReadStream } from "node:fs";

/**
 * The text of a file that must not be large. Never reads more than `maxBytes`, whatever the file says of its size.
 *
 * @throws RangeError when it is larger; the system error of open and read (ENOENT, EACCES, EISDIR)
 */
export async function readSmallFile(path: string, options: { readonly maxBytes: number }): Promise<string> {
  const { maxBytes } = options;
  const chunks: Buffer[] = [];
  let size = 0;
  // `end` is inclusive: one byte more than allowed tells "exactly" from "too much".
  for await (const chunk of createReadStream(path, { end: maxBytes }) as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > maxBytes) throw new RangeError(`the file is larger than ${maxBytes} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

// SPDX-License-Identifier: Apache-2.0

const BLOCK_BYTES = 512;
// Extended headers hold names; anything longer is hostile.
const MAX_EXTENDED_BYTES = 1024 * 1024;

export interface TarEntry {
  readonly name: string;
  readonly kind: "file" | "other";
  readonly sizeBytes: number;
  /** The content; may be called once, before the next entry is taken. */
  read(): Promise<Buffer>;
}

/** The entries of a tar stream: ustar, with long names by pax (POSIX.1-2001) or GNU. */
export async function* readTar(source: AsyncIterable<Buffer>): AsyncGenerator<TarEntry> {
  const reader = createReader(source);
  let longName: string | undefined;
  for (;;) {
    const header = await reader.take(BLOCK_BYTES);
    // Two empty blocks end an archive; a stream that ends without them has ended as well.
    if (header.length < BLOCK_BYTES || header.every((byte) => byte === 0)) return;
    const sizeBytes = numberAt(header, 124, 12);
    const type = String.fromCharCode(header[156] ?? 0);
    const padding = (BLOCK_BYTES - (sizeBytes % BLOCK_BYTES)) % BLOCK_BYTES;
    if (type === "L" || type === "x") {
      if (sizeBytes > MAX_EXTENDED_BYTES) throw new Error(`a tar header claims ${sizeBytes} bytes`);
      const text = (await reader.take(sizeBytes)).toString("utf8");
      await reader.skip(padding);
      longName =
        type === "L"
          ? text.replace(/\0.*$/s, "")
          : (/(?:^|\n)\d+ path=([^\n]*)\n/.exec(text)?.[1] ?? longName);
      continue;
    }
    let left = sizeBytes;
    yield {
      name: longName ?? nameOf(header),
      kind: type === "0" || type === "\0" ? "file" : "other",
      sizeBytes,
      async read() {
        left = 0;
        return reader.take(sizeBytes);
      },
    };
    longName = undefined;
    await reader.skip(left + padding);
  }
}

function nameOf(header: Buffer): string {
  const name = textAt(header, 0, 100);
  const prefix = textAt(header, 257, 5) === "ustar" ? textAt(header, 345, 155) : "";
  return prefix === "" ? name : `${prefix}/${name}`;
}

function textAt(header: Buffer, start: number, length: number): string {
  return header.toString("utf8", start, start + length).replace(/\0.*$/s, "");
}

// Octal text, or base 256 when the first bit is set (GNU, for sizes from 8 GiB on).
function numberAt(header: Buffer, start: number, length: number): number {
  const field = header.subarray(start, start + length);
  if (((field[0] ?? 0) & 0x80) !== 0) return Number(field.readBigUInt64BE(length - 8));
  const value = Number.parseInt(textAt(header, start, length).trim() || "0", 8);
  if (!Number.isSafeInteger(value) || value < 0) throw new Error("a tar header has no readable size");
  return value;
}

interface Reader {
  /** Up to `sizeBytes` bytes; fewer only at the end of the source. */
  take(sizeBytes: number): Promise<Buffer>;
  skip(sizeBytes: number): Promise<void>;
}

function createReader(source: AsyncIterable<Buffer>): Reader {
  const iterator = source[Symbol.asyncIterator]();
  let rest: Buffer = Buffer.alloc(0);

  /** Hands out the source piece by piece, at most `sizeBytes` of it. */
  async function drain(sizeBytes: number, use: (piece: Buffer) => void): Promise<void> {
    let left = sizeBytes;
    while (left > 0) {
      if (rest.length === 0) {
        const next = await iterator.next();
        if (next.done === true) return;
        rest = next.value;
      }
      const piece = rest.subarray(0, left);
      rest = rest.subarray(piece.length);
      left -= piece.length;
      use(piece);
    }
  }

  return {
    async take(sizeBytes) {
      const pieces: Buffer[] = [];
      await drain(sizeBytes, (piece) => pieces.push(piece));
      return Buffer.concat(pieces);
    },
    skip: (sizeBytes) => drain(sizeBytes, () => {}),
  };
}

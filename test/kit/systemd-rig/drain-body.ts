// SPDX-License-Identifier: Apache-2.0
import { connect } from "node:net";

const HEAD_END = Buffer.from("\r\n\r\n");

/** One GET whose body is read to its end and thrown away. */
export interface Transfer {
  readonly host: string;
  readonly port: number;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/**
 * Runs one transfer cheaply: one buffer, no streams.
 *
 * @returns the bytes of the body
 * @throws Error for a status other than 200 and for a body that ends early
 */
export function drainBody(
  { host, port, path, headers = {} }: Transfer,
  { signal }: { readonly signal: AbortSignal },
): Promise<number> {
  return new Promise((resolve, reject) => {
    let head: Buffer | undefined = Buffer.alloc(0);
    let wanted = 0;
    let received = 0;
    const fail = (message: string): void => {
      socket.destroy();
      reject(new Error(`${path}: ${message}`));
    };
    const take = (chunk: Buffer): void => {
      if (head === undefined) received += chunk.length;
      else {
        head = Buffer.concat([head, chunk]);
        const end = head.indexOf(HEAD_END);
        if (end < 0) return;
        const text = head.toString("latin1", 0, end);
        if (!text.startsWith("HTTP/1.1 200 ")) return fail(text.split("\r\n", 1)[0] ?? "no answer");
        wanted = Number(/^content-length: *([0-9]+)/im.exec(text)?.[1]);
        received = head.length - end - HEAD_END.length;
        head = undefined;
      }
      if (received >= wanted) {
        socket.destroy();
        resolve(received);
      }
    };
    const socket = connect({
      host,
      port,
      signal,
      onread: {
        buffer: Buffer.allocUnsafeSlow(128 * 1024),
        callback: (length, buffer) => {
          take(Buffer.from(buffer.buffer, 0, length) as Buffer);
          return true;
        },
      },
    });
    const lines = Object.entries({ Host: `${host}:${port}`, Connection: "close", ...headers });
    socket.on("connect", () =>
      socket.write(
        `GET ${path} HTTP/1.1\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n`,
      ),
    );
    socket.on("error", (error) => fail(error.message));
    socket.on("close", () => fail(`closed after ${received} of ${wanted} bytes`));
  });
}

// SPDX-License-Identifier: Apache-2.0
/**
 * A program: `proxy-program.ts <port> <target port> [lie]`. Stands before a mirror on the same node, writes each
 * request's head as a line of JSON, and may change what the mirror answers to GETs of blobs above 1 MiB.
 */
import { createServer, request as send } from "node:http";
import { Transform } from "node:stream";

const [, , port, target, lie = "none"] = process.argv;
const LARGE_BYTES = 1024 * 1024;
const SURPLUS = Buffer.from("surplus");

/** Flips one bit of the middle byte. */
function flip(lengthBytes: number): Transform {
  let left = Math.floor(lengthBytes / 2);
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      if (left >= 0 && left < chunk.length) chunk[left] = (chunk[left] as number) ^ 1;
      left -= chunk.length;
      done(null, chunk);
    },
  });
}

/** Ends after so many bytes. */
function first(lengthBytes: number): Transform {
  let left = lengthBytes;
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      const part = chunk.subarray(0, left);
      left -= part.length;
      done(null, part);
    },
  });
}

function surplus(): Transform {
  return new Transform({
    transform: (chunk: Buffer, _encoding, done) => done(null, chunk),
    flush(done) {
      this.push(SURPLUS);
      done();
    },
  });
}

createServer((incoming, outgoing) => {
  const { method, url, headers } = incoming;
  console.log(JSON.stringify({ method, url, headers }));
  const forwarded = send(
    { host: "127.0.0.1", port: Number(target), method, path: url, headers, agent: false },
    (answer) => {
      const lengthBytes = Number(answer.headers["content-length"] ?? 0);
      const lies = method === "GET" && url?.includes("/blobs/") && lengthBytes > LARGE_BYTES;
      const answerHeaders = { ...answer.headers };
      let body: NodeJS.ReadableStream = answer;
      if (lies && lie === "flip") body = answer.pipe(flip(lengthBytes));
      if (lies && lie === "few") {
        answerHeaders["content-length"] = String(lengthBytes - SURPLUS.length);
        body = answer.pipe(first(lengthBytes - SURPLUS.length));
      }
      if (lies && lie === "many") {
        answerHeaders["content-length"] = String(lengthBytes + SURPLUS.length);
        body = answer.pipe(surplus());
      }
      outgoing.writeHead(answer.statusCode ?? 502, answerHeaders);
      body.pipe(outgoing);
      answer.on("error", () => outgoing.destroy());
      outgoing.on("close", () => answer.destroy());
    },
  );
  forwarded.on("error", () => outgoing.destroy());
  incoming.pipe(forwarded);
}).listen(Number(port), "::", () => console.log("listening"));

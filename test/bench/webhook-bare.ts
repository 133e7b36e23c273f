// SPDX-License-Identifier: Apache-2.0
/**
 * The least that a webhook on Node can do, for the bench: takes a request over TLS, looks at nothing, and answers with so many bytes.
 *
 *   node test/bench/webhook-bare.ts CERTIFICATE KEY ANSWER_BYTES
 */
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";

const [certificate = "", key = "", bytes = "0"] = process.argv.slice(2);
const answer = Buffer.alloc(Number(bytes), "x");
const server = createServer(
  { cert: readFileSync(certificate), key: readFileSync(key), minVersion: "TLSv1.3" },
  (request, response) => {
    request
      .on("data", () => {})
      .once("end", () => response.writeHead(200, { "content-length": answer.length }).end(answer));
  },
);
server.listen(0, "127.0.0.1", () => console.log(`127.0.0.1:${(server.address() as AddressInfo).port}`));

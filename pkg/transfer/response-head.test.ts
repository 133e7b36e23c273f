// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { TransferError } from "./errors.ts";
import { HEAD_LIMIT_BYTES, parseResponseHead } from "./response-head.ts";

const parse = (text: string) => parseResponseHead(Buffer.from(text, "latin1"));

const fieldName = fc.stringMatching(/^x-[a-z0-9!#$%&'*+.^_`|~-]{0,20}$/);
const fieldValue = fc.stringMatching(/^([!-~\x80-\xff]([\t -~\x80-\xff]{0,30}[!-~\x80-\xff])?)?$/);

describe("parseResponseHead", () => {
  test("reads the status, the fields and the length, and says where the body starts", () => {
    const text = "HTTP/1.1 206 Partial Content\r\nContent-Length: 12\r\nX-A:  b \t\r\nx-a: c\r\n\r\nbody";
    const head = parse(text);
    assert.equal(head?.status, 206);
    assert.equal(head.contentLength, 12);
    assert.equal(head.headers.get("x-a"), "b, c");
    assert.equal(head.keepAlive, true);
    assert.equal(text.slice(head.sizeBytes), "body");
  });

  test("a connection ends after HTTP/1.0 and after Connection: close", () => {
    assert.equal(parse("HTTP/1.0 200 OK\r\n\r\n")?.keepAlive, false);
    assert.equal(parse("HTTP/1.1 200\r\nConnection: x, Close\r\n\r\n")?.keepAlive, false);
    assert.equal(parse("HTTP/1.1 200 \r\n\r\n")?.contentLength, undefined);
  });

  test("whatever is ambiguous or malformed is refused with its code", () => {
    const refused: [string, string][] = [
      ["HTTP/2 200 OK\r\n\r\n", "TRANSFER_HEAD_INVALID"],
      ["HTTP/1.1 20 OK\r\n\r\n", "TRANSFER_HEAD_INVALID"],
      ["HTTP/1.1 2000 OK\r\n\r\n", "TRANSFER_HEAD_INVALID"],
      ["HTTP/1.1  200 OK\r\n\r\n", "TRANSFER_HEAD_INVALID"],
      ["HTTP/1.1 200 OK\nA: b\r\n\r\n", "TRANSFER_HEAD_INVALID"],
      ["http/1.1 200 OK\r\n\r\n", "TRANSFER_HEAD_INVALID"],
      ["\r\n\r\n", "TRANSFER_HEAD_INVALID"],
      ["SSH-2.0-OpenSSH_9.6\r\n\r\n", "TRANSFER_HEAD_INVALID"],
      ["HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "TRANSFER_HEAD_INVALID"],
      ["HTTP/1.1 200 OK\r\n: empty\r\n\r\n", "TRANSFER_HEAD_INVALID"],
      ["HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "TRANSFER_HEAD_INVALID"],
      ["HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n", "TRANSFER_HEAD_INVALID"],
      ["HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n", "TRANSFER_HEAD_INVALID"],
      ["HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n", "TRANSFER_HEAD_INVALID"],
      ["HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", "TRANSFER_LENGTH_INVALID"],
      ["HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n", "TRANSFER_LENGTH_INVALID"],
      ["HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "TRANSFER_LENGTH_INVALID"],
      ["HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n", "TRANSFER_LENGTH_INVALID"],
      ["HTTP/1.1 200 OK\r\nContent-Length: 1e3\r\n\r\n", "TRANSFER_LENGTH_INVALID"],
      ["HTTP/1.1 200 OK\r\nContent-Length: 0x10\r\n\r\n", "TRANSFER_LENGTH_INVALID"],
      ["HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", "TRANSFER_LENGTH_INVALID"],
      ["HTTP/1.1 200 OK\r\nContent-Length: 9007199254740992\r\n\r\n", "TRANSFER_LENGTH_INVALID"],
      ["HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", "TRANSFER_LENGTH_INVALID"],
      ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "TRANSFER_CODING_UNSUPPORTED"],
      ["HTTP/1.1 200 OK\r\nTransfer-Encoding: identity, chunked\r\n\r\n", "TRANSFER_CODING_UNSUPPORTED"],
      ["HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", "TRANSFER_CODING_UNSUPPORTED"],
    ];
    for (const [text, code] of refused) {
      assert.throws(() => parse(text), { name: "TransferError", code }, JSON.stringify(text));
    }
  });

  test("the identity coding is none", () => {
    assert.equal(parse("HTTP/1.1 200 OK\r\nContent-Encoding: Identity\r\n\r\n")?.status, 200);
  });

  test("a head of exactly the limit is taken, one byte more is refused, ended or not", () => {
    const start = "HTTP/1.1 200 OK\r\nx: ";
    const filled = (sizeBytes: number): string =>
      `${start}${"y".repeat(sizeBytes - start.length - 4)}\r\n\r\n`;
    assert.equal(parse(filled(HEAD_LIMIT_BYTES))?.sizeBytes, HEAD_LIMIT_BYTES);
    assert.throws(() => parse(filled(HEAD_LIMIT_BYTES + 1)), { code: "TRANSFER_HEAD_TOO_LARGE" });
    assert.throws(() => parse("y".repeat(HEAD_LIMIT_BYTES)), { code: "TRANSFER_HEAD_TOO_LARGE" });
    assert.equal(parse("y".repeat(HEAD_LIMIT_BYTES - 1)), undefined);
  });

  test("what was written is what is read, and every shorter prefix is incomplete", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 100, max: 999 }),
        fc.uniqueArray(fc.tuple(fieldName, fieldValue), { maxLength: 12, selector: ([name]) => name }),
        fc.option(fc.maxSafeNat(), { nil: undefined }),
        fc.uint8Array({ maxLength: 50 }),
        (status, fields, length, body) => {
          const lines = [`HTTP/1.1 ${status} Reason`, ...fields.map(([name, value]) => `${name}:${value}`)];
          if (length !== undefined) lines.push(`content-length: ${length}`);
          const text = Buffer.from(`${lines.join("\r\n")}\r\n\r\n`, "latin1");
          const head = parseResponseHead(Buffer.concat([text, body]));
          assert.equal(head?.status, status);
          assert.equal(head.contentLength, length);
          assert.equal(head.sizeBytes, text.length);
          for (const [name, value] of fields) assert.equal(head.headers.get(name), value);
          for (let size = 0; size < text.length; size++) {
            assert.equal(parseResponseHead(text.subarray(0, size)), undefined);
          }
        },
      ),
    );
  });

  test("any bytes give a head, undefined or a TransferError", () => {
    const noise = fc.oneof(
      fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
      fc
        .array(
          fc.constantFrom(
            "HTTP/1.1 200 OK",
            "\r\n",
            "\n",
            ":",
            " ",
            "Content-Length",
            "1",
            "a",
            "\0",
            "chunked",
          ),
        )
        .map((parts) => Buffer.from(`${parts.join("")}\r\n\r\n`, "latin1")),
      fc
        .array(
          fc.constantFrom("\r\n", ":", " ", "Content-Length: 1", "a: b", "\t", "Transfer-Encoding:", "\x7f"),
        )
        .map((parts) => Buffer.from(`HTTP/1.1 200 OK\r\n${parts.join("")}\r\n\r\n`, "latin1")),
    );
    fc.assert(
      fc.property(noise, (bytes) => {
        try {
          const head = parseResponseHead(bytes);
          assert.ok(head === undefined || (head.status >= 100 && head.sizeBytes <= bytes.length));
        } catch (error) {
          assert.ok(error instanceof TransferError, String(error));
        }
      }),
      { numRuns: 2000 },
    );
  });
});

// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "node:test";
import fc from "fast-check";
import protobuf from "protobufjs";
import type { Codec } from "./codec.ts";
import * as messages from "./messages.ts";
import * as services from "./services.ts";

const FILES = ["types", "content", "images", "events", "introspection", "version"];

async function loadProtos(): Promise<protobuf.Root> {
  const root = new protobuf.Root();
  root.resolvePath = (_, target) => join(import.meta.dirname, target);
  await root.load(FILES.map((name) => `${name}.proto`));
  root.resolveAll();
  return root;
}

const root = await loadProtos();

function typesOf(namespace: protobuf.NamespaceBase): protobuf.Type[] {
  return namespace.nestedArray.flatMap((each) =>
    each instanceof protobuf.Type ? [each] : each instanceof protobuf.Namespace ? typesOf(each) : [],
  );
}

/** Random values of a message as plain objects with the names of our codecs. */
function valueOf(type: protobuf.Type): fc.Arbitrary<Record<string, unknown>> {
  const fields = type.fieldsArray.map((field): [string, fc.Arbitrary<unknown>] => {
    const scalar = scalarOf(field);
    if (field.map) return [field.name, fc.array(fc.tuple(text, text)).map((pairs) => new Map(pairs))];
    return [field.name, field.repeated ? fc.array(scalar, { maxLength: 4 }) : scalar];
  });
  return fc.record(Object.fromEntries(fields), { noNullPrototype: true });
}

const text = fc.string({ unit: "grapheme", maxLength: 20 });

function scalarOf(field: protobuf.Field): fc.Arbitrary<unknown> {
  if (field.type === "string") return text;
  if (field.type === "bytes") return fc.uint8Array({ maxLength: 20 }).map((bytes) => Buffer.from(bytes));
  if (field.type === "bool") return fc.boolean();
  if (field.type === "int64") return fc.maxSafeInteger();
  if (field.type === "int32") return fc.integer();
  assert.ok(field.resolvedType instanceof protobuf.Type, `${field.fullName} has a type the codec lacks`);
  return valueOf(field.resolvedType);
}

/** Objects for maps, as protobufjs has them. */
function plain(value: unknown): unknown {
  if (value instanceof Map) return Object.fromEntries(value);
  if (value instanceof Uint8Array) return value;
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, plain(each)]));
  }
  return value;
}

describe("containerd messages", () => {
  const codecs = messages as unknown as Readonly<Record<string, Codec<object>>>;

  for (const type of typesOf(root)) {
    it(`reads and writes ${type.name} as protobufjs does with the .proto file`, () => {
      const codec = codecs[type.name];
      assert.ok(codec, `no codec for ${type.fullName}`);
      fc.assert(
        fc.property(valueOf(type), (value) => {
          const encoded = codec.encode(value);
          const theirs = type.toObject(type.decode(encoded), { longs: Number, defaults: true, arrays: true });
          assert.deepEqual(theirs, plain(value));
          const decoded = codec.decode(type.encode(type.fromObject(plain(value) as object)).finish());
          assert.deepEqual(decoded, value);
        }),
        { numRuns: 60 },
      );
    });
  }

  it("has no codec without a message in a .proto file", () => {
    const declared = new Set(typesOf(root).map((type) => type.name));
    const extra = Object.keys(codecs).filter((name) => !declared.has(name) && name !== "WRITE_ACTION");
    assert.deepEqual(extra, []);
  });

  it("throws RangeError or decodes, whatever the bytes are", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        for (const codec of [messages.ListContentResponse, messages.Envelope, messages.WriteContentRequest]) {
          try {
            codec.decode(bytes);
          } catch (error) {
            assert.ok(error instanceof RangeError);
          }
        }
      }),
      { numRuns: 2000 },
    );
  });

  it("decodes a negative size and refuses one beyond 2^53", () => {
    const info = root.lookupType("containerd.services.content.v1.Info");
    assert.equal(messages.Info.decode(info.encode(info.fromObject({ size: -7 })).finish()).size, -7);
    const huge = Buffer.from([0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    assert.throws(() => messages.Info.decode(huge), RangeError);
  });

  it("skips fields it does not know, of every wire type", () => {
    const known = messages.Info.encode({ digest: "sha256:a" });
    const varint = Buffer.from([0x78, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
    const fixed64 = Buffer.from([0x79, 1, 2, 3, 4, 5, 6, 7, 8]);
    const lengthDelimited = Buffer.from([0x7a, 2, 0, 0]);
    const fixed32 = Buffer.from([0x7d, 1, 2, 3, 4]);
    const bytes = Buffer.concat([varint, fixed64, lengthDelimited, known, fixed32]);
    assert.equal(messages.Info.decode(bytes).digest, "sha256:a");
    assert.throws(() => messages.Info.decode(bytes.subarray(0, -1)), RangeError);
    assert.throws(() => messages.Info.decode(Buffer.from([0x7b])), RangeError, "groups are malformed");
  });

  it("keeps a label named __proto__ as a label", () => {
    const encoded = messages.Info.encode({ labels: new Map([["__proto__", "x"]]) });
    assert.equal(messages.Info.decode(encoded).labels.get("__proto__"), "x");
  });
});

describe("containerd services", () => {
  it("have the methods that the .proto files declare, with their kinds of streams", () => {
    const declared = servicesOf(root);
    const ours = Object.values(services as Record<string, Record<string, { path: string }>>).flatMap(
      (service) =>
        Object.values(service).map((each) => {
          const { path, requestStream, responseStream } = each as unknown as {
            path: string;
            requestStream: boolean;
            responseStream: boolean;
          };
          return `${path} ${requestStream} ${responseStream}`;
        }),
    );
    assert.deepEqual(ours.toSorted(), declared.toSorted());
  });

  function servicesOf(namespace: protobuf.NamespaceBase): string[] {
    return namespace.nestedArray.flatMap((each) => {
      if (each instanceof protobuf.Service) {
        return each.methodsArray.map(
          (method) =>
            `/${each.fullName.slice(1)}/${method.name} ${method.requestStream ?? false} ${method.responseStream ?? false}`,
        );
      }
      return each instanceof protobuf.Namespace ? servicesOf(each) : [];
    });
  }
});

// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { describe, it } from "node:test";
import { sha256Digest } from "#oci";
import { createMemoryRouting } from "#routing";
import { ask, openNode, openPeer } from "./testing.ts";

const NS = "ns=registry.example.test";
const MEBIBYTE = 1024 * 1024;
const MANIFEST = Buffer.from(
  JSON.stringify({ schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", manifests: [] }),
);

type Handle = (request: IncomingMessage, response: ServerResponse) => void;

/** Serves `bytes` as a well-behaved peer does; `body` may spoil it. */
function serving(
  bytes: Buffer,
  body: (part: Buffer, response: ServerResponse) => void = (part, response) => response.end(part),
): Handle {
  return (request, response) => {
    const match = /^bytes=([0-9]+)-([0-9]*)$/.exec(request.headers.range ?? "");
    const headers: Record<string, string | number> = {
      "content-type": "application/octet-stream",
      "docker-content-digest": sha256Digest(bytes),
    };
    if (match === null) {
      response.writeHead(200, { ...headers, "content-length": bytes.length });
      return body(bytes, response);
    }
    const start = Number(match[1]);
    const end = match[2] === "" ? bytes.length - 1 : Number(match[2]);
    const part = bytes.subarray(start, end + 1);
    response.writeHead(206, {
      ...headers,
      "content-length": part.length,
      "content-range": `bytes ${start}-${end}/${bytes.length}`,
    });
    return body(part, response);
  };
}

/** A node without content, and peers 127.0.0.2, .3, ... that behave as told and are found in this order. */
async function openSwarm(
  key: string,
  handles: readonly Handle[],
  settings: Parameters<typeof openNode>[0] = {},
) {
  const stack = new AsyncDisposableStack();
  const routing = createMemoryRouting();
  const peers: Awaited<ReturnType<typeof openPeer>>[] = [];
  for (const [index, handle] of handles.entries()) {
    const host = `127.0.0.${index + 2}`;
    const peer = stack.use(await openPeer(host, peers[0]?.port ?? 0, handle));
    peers.push(peer);
    routing.add(key, { id: `peer-${index + 1}`, addresses: [host] });
  }
  const node = stack.use(
    await openNode({ routing, ...(peers[0] === undefined ? {} : { peerPort: peers[0].port }), ...settings }),
  );
  return { node, peers, routing, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

const dead: Handle = (request) => request.socket.destroy();
const silent: Handle = () => {};

describe("a pull of content that only peers have", () => {
  const blob = randomBytes(3 * MEBIBYTE);
  const digest = sha256Digest(blob);
  const path = `/v2/lib/app/blobs/${digest}?${NS}`;

  it("is served whole and by range, GET and HEAD, with the peer's description", async () => {
    await using swarm = await openSwarm(digest, [serving(blob)]);
    const whole = await ask(`${swarm.node.url}${path}`);
    assert.equal(whole.status, 200);
    assert.ok(whole.body.equals(blob));
    assert.equal(whole.headers["docker-content-digest"], digest);
    assert.equal(whole.headers["accept-ranges"], "bytes");
    assert.equal(whole.headers["oci-namespace"], undefined);
    const part = await ask(`${swarm.node.url}${path}`, { headers: { Range: "bytes=5-2000000" } });
    assert.deepEqual([part.status, part.headers["content-range"]], [206, `bytes 5-2000000/${blob.length}`]);
    assert.ok(part.body.equals(blob.subarray(5, 2_000_001)));
    const head = await ask(`${swarm.node.url}${path}`, { method: "HEAD" });
    assert.deepEqual(
      [head.status, head.headers["content-length"], head.body.length],
      [200, String(blob.length), 0],
    );
  });

  it("is asked for as Spegel asks: marked, with the namespace, and not a hop further", async () => {
    await using swarm = await openSwarm(digest, [serving(blob)]);
    await ask(`${swarm.node.url}${path}`);
    const [request] = swarm.peers[0]?.requests ?? [];
    assert.equal(request?.headers["x-spegel-mirrored"], "true");
    assert.equal(request?.headers["user-agent"], "spegel");
    assert.equal(request?.url, path);
    assert.equal(request?.headers["accept-encoding"], undefined);
    const mirrored = await ask(`${swarm.node.url}${path}`, { headers: { "X-Spegel-Mirrored": "true" } });
    assert.equal(mirrored.status, 404);
    assert.equal(swarm.peers[0]?.requests.length, 1);
  });

  it("is 404 with Spegel's words when nobody announces it", async () => {
    await using swarm = await openSwarm(digest, []);
    const answer = await ask(`${swarm.node.url}${path}`);
    assert.equal(answer.status, 404);
    assert.equal(
      answer.body.toString(),
      `{"errors":[{"code":"BLOB_UNKNOWN","detail":{"attempts":0},"message":"could not find peer for ${digest}"}]}`,
    );
  });

  it("is 404 with the number of attempts when every peer fails", async () => {
    await using swarm = await openSwarm(digest, [
      dead,
      (_request, response) => response.writeHead(404).end(),
      dead,
    ]);
    const answer = await ask(`${swarm.node.url}${path}`);
    assert.equal(
      answer.body.toString(),
      `{"errors":[{"code":"BLOB_UNKNOWN","detail":{"attempts":3},"message":"all request retries exhausted for ${digest}"}]}`,
    );
  });

  it("is 404 when peers accept and never answer, instead of hanging", async () => {
    await using swarm = await openSwarm(digest, [silent, silent]);
    const answer = await ask(`${swarm.node.url}${path}`);
    assert.equal(answer.status, 404);
    assert.match(
      answer.body.toString(),
      /"attempts":2.*waited too long for inflight dials|"attempts":2.*all request retries exhausted/,
    );
  });

  it("comes from whichever peer works", async () => {
    for (const handles of [
      [serving(blob), dead, dead],
      [dead, serving(blob), dead],
      [dead, silent, serving(blob)],
      [silent, (_request, response) => response.writeHead(404).end(), serving(blob)],
    ] as Handle[][]) {
      await using swarm = await openSwarm(digest, handles);
      const answer = await ask(`${swarm.node.url}${path}`);
      assert.equal(answer.status, 200);
      assert.ok(answer.body.equals(blob));
    }
  });

  it("goes on at the same byte from another peer when one dies, stalls or ends early", async () => {
    const cutAt = MEBIBYTE + 12_345;
    const spoilers: ((part: Buffer, response: ServerResponse) => void)[] = [
      (part, response) => response.write(part.subarray(0, cutAt), () => response.destroy()),
      (part, response) => response.write(part.subarray(0, cutAt)),
    ];
    for (const spoil of spoilers) {
      await using swarm = await openSwarm(digest, [serving(blob, spoil), serving(blob)]);
      const answer = await ask(`${swarm.node.url}${path}`);
      assert.equal(answer.cut, false);
      assert.ok(answer.body.equals(blob));
      assert.equal(swarm.peers[1]?.requests.length, 1);
      assert.match(
        swarm.peers[1]?.requests[0]?.headers.range ?? "",
        new RegExp(`^bytes=[0-9]+-${blob.length - 1}$`),
      );
    }
  });

  it("is put together from one flaky peer that breaks again and again", async () => {
    const flaky = serving(blob, (part, response) => {
      if (part.length < 1000) response.end(part);
      else response.write(part.subarray(0, Math.ceil(part.length * 0.4)), () => response.destroy());
    });
    await using swarm = await openSwarm(digest, [flaky]);
    const answer = await ask(`${swarm.node.url}${path}`, {
      headers: { Range: `bytes=2-${blob.length - 3}` },
    });
    assert.equal(answer.status, 206);
    assert.ok(answer.body.equals(blob.subarray(2, blob.length - 2)));
  });

  it("is cut, not completed with wrong bytes, when the only other peer ignores the range or has another size", async () => {
    const dying = serving(blob, (part, response) =>
      response.write(part.subarray(0, MEBIBYTE), () => response.destroy()),
    );
    let asked = 0;
    const once: Handle = (request, response) =>
      asked++ === 0 ? dying(request, response) : response.writeHead(404).end();
    const others: Handle[] = [
      (_request, response) => response.writeHead(200, { "content-length": blob.length }).end(blob),
      (request, response) => {
        const start = Number(/^bytes=([0-9]+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
        const part = Buffer.alloc(blob.length + 1 - start);
        response
          .writeHead(206, {
            "content-length": part.length,
            "content-range": `bytes ${start}-${blob.length}/${blob.length + 1}`,
          })
          .end(part);
      },
      (request, response) => {
        const start = Number(/^bytes=([0-9]+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
        const headers = {
          "content-length": blob.length - start,
          "content-range": `bytes ${start}-${blob.length - 1}/${blob.length}`,
        };
        response
          .writeHead(206, { ...headers, "docker-content-digest": sha256Digest("something else") })
          .end(blob.subarray(start));
      },
    ];
    for (const other of others) {
      asked = 0;
      await using swarm = await openSwarm(digest, [once, other]);
      const answer = await ask(`${swarm.node.url}${path}`);
      assert.equal(answer.cut, true);
      assert.ok(answer.body.length >= MEBIBYTE && answer.body.length < blob.length);
      assert.ok(answer.body.equals(blob.subarray(0, answer.body.length)));
    }
  });

  it("is not taken from a peer whose head is wrong", async () => {
    const heads: [number, Record<string, string | number>][] = [
      [200, { "content-length": 5, "docker-content-digest": sha256Digest("other") }],
      [200, { "content-length": 5, "docker-content-digest": "sha256:zz" }],
      [206, { "content-length": blob.length }],
      [200, { "content-length": 5, "content-encoding": "gzip" }],
      [204, {}],
      [301, { location: "http://127.0.0.9/", "content-length": 0 }],
      [401, { "www-authenticate": 'Bearer realm="http://127.0.0.9/"', "content-length": 0 }],
      [200, {}], // chunked
    ];
    for (const [status, headers] of heads) {
      await using swarm = await openSwarm(digest, [
        (_request, response) =>
          response
            .writeHead(status, headers)
            .end(status === 204 || "content-length" in headers ? undefined : "body"),
        serving(blob),
      ]);
      const answer = await ask(`${swarm.node.url}${path}`);
      assert.equal(answer.status, 200, JSON.stringify(headers));
      assert.ok(answer.body.equals(blob), JSON.stringify(headers));
    }
  });

  it("does not remember that nobody had it", async () => {
    await using swarm = await openSwarm("other", [serving(blob)]);
    assert.equal((await ask(`${swarm.node.url}${path}`)).status, 404);
    swarm.routing.add(digest, { id: "peer-1", addresses: ["127.0.0.2"] });
    assert.equal((await ask(`${swarm.node.url}${path}`)).status, 200);
  });

  it("does not return to a peer that was silent while others can be asked", async () => {
    await using swarm = await openSwarm(digest, [silent, serving(blob)]);
    for (let round = 0; round < 3; round++) assert.equal((await ask(`${swarm.node.url}${path}`)).status, 200);
    assert.ok((swarm.peers[0]?.requests.length ?? 0) <= 3);
  });

  it("goes on from another peer when one only trickles, and is cut and then 404 when there is no other", async () => {
    const trickle = serving(blob, (part, response) => {
      response.write(part.subarray(0, MEBIBYTE));
      const drip = setInterval(() => response.write(part.subarray(0, 1)), 5);
      response.on("close", () => clearInterval(drip));
    });
    const settings = { stallTimeoutMs: 200, leastBytesPerSecond: MEBIBYTE };
    {
      await using swarm = await openSwarm(digest, [trickle, serving(blob)], settings);
      const answer = await ask(`${swarm.node.url}${path}`);
      assert.equal(answer.cut, false);
    }
    await using swarm = await openSwarm(digest, [trickle], settings);
    const answer = await ask(`${swarm.node.url}${path}`);
    assert.ok(answer.cut && answer.body.length >= MEBIBYTE);
    const rest = await ask(`${swarm.node.url}${path}`, {
      headers: { Range: `bytes=${answer.body.length}-` },
    });
    assert.equal(rest.status, 404);
    assert.equal(swarm.peers[0]?.requests.length, 1);
  });

  it("comes with wrong bytes from a peer once at most, and then from a peer that has the right ones", async () => {
    const spoilt = Buffer.from(blob);
    spoilt[2 * MEBIBYTE] = (spoilt[2 * MEBIBYTE] ?? 0) ^ 1;
    const lying = serving(blob, (part, response) => {
      response.end(spoilt.subarray(blob.length - part.length, blob.length));
    });
    await using swarm = await openSwarm(digest, [lying, serving(blob)]);
    const first = await ask(`${swarm.node.url}${path}`);
    assert.ok(first.body.equals(spoilt), "the first answer cannot be known to be wrong");
    for (let round = 0; round < 3; round++) {
      const again = await ask(`${swarm.node.url}${path}`);
      assert.ok(again.body.equals(blob));
    }
    const part = await ask(`${swarm.node.url}${path}`, { headers: { Range: "bytes=2000000-" } });
    assert.ok(part.body.equals(blob.subarray(2_000_000)));
    // The one that delivered is asked last; another one that can prove itself is there.
    assert.equal(swarm.peers[0]?.requests.length, 1);
  });

  it("is 404 when its only holder sent it with wrong bytes or a wrong length before", async () => {
    const spoilt = Buffer.concat([blob.subarray(0, -1), Buffer.from([(blob.at(-1) ?? 0) ^ 1])]);
    for (const wrong of [spoilt, blob.subarray(0, -5), Buffer.concat([blob, Buffer.from("more")])]) {
      const lying: Handle = (_request, response) =>
        response
          .writeHead(200, { "content-length": wrong.length, "docker-content-digest": digest })
          .end(wrong);
      await using swarm = await openSwarm(digest, [lying]);
      assert.ok((await ask(`${swarm.node.url}${path}`)).body.equals(wrong));
      for (let round = 0; round < 2; round++)
        assert.equal((await ask(`${swarm.node.url}${path}`)).status, 404);
      assert.equal(swarm.peers[0]?.requests.length, 2);
    }
  });

  it("is read through once when it is asked for again, and not after that, when its bytes are right", async () => {
    await using swarm = await openSwarm(digest, [serving(blob)]);
    for (let round = 0; round < 4; round++) {
      const answer = await ask(`${swarm.node.url}${path}`);
      assert.ok(answer.body.equals(blob));
    }
    assert.equal(swarm.peers[0]?.requests.length, 4 + 1);
  });

  it("is relayed 64 times at once from its only holder, each complete", async () => {
    const large = randomBytes(2 * MEBIBYTE + 7);
    const name = sha256Digest(large);
    await using swarm = await openSwarm(name, [serving(large)]);
    const answers = await Promise.all(
      Array.from({ length: 64 }, () => ask(`${swarm.node.url}/v2/lib/app/blobs/${name}?${NS}`)),
    );
    assert.ok(answers.every((answer) => answer.status === 200 && !answer.cut && answer.body.equals(large)));
    const metrics = await swarm.node.metrics.render();
    assert.match(metrics, /spegel_mirror_requests_total\{registry="registry.example.test",cache="hit"\} 64/);
    assert.match(metrics, new RegExp(`spegel_sent_bytes_total\\{source="peer"\\} ${64 * large.length}`));
  });
});

describe("a pull of a small object that only peers have", () => {
  const key = "registry.example.test/lib/app:1";
  const manifest: Handle = (request, response) => {
    const headers = {
      "content-type": "application/vnd.oci.image.index.v1+json",
      "content-length": MANIFEST.length,
      "docker-content-digest": sha256Digest(MANIFEST),
    };
    response.writeHead(200, headers).end(request.method === "HEAD" ? undefined : MANIFEST);
  };

  it("resolves a tag by HEAD and GET", async () => {
    await using swarm = await openSwarm(key, [manifest]);
    for (const method of ["HEAD", "GET"]) {
      const answer = await ask(`${swarm.node.url}/v2/lib/app/manifests/1?${NS}`, { method });
      assert.equal(answer.status, 200);
      assert.equal(answer.headers["docker-content-digest"], sha256Digest(MANIFEST));
      assert.equal(answer.headers["content-type"], "application/vnd.oci.image.index.v1+json");
      assert.equal(answer.headers["content-length"], String(MANIFEST.length));
    }
  });

  it("is never given with wrong bytes: another peer is asked, and without one it is 404", async () => {
    const digest = sha256Digest(MANIFEST);
    const wrong: Handle = (_request, response) => {
      const bytes = Buffer.from(MANIFEST);
      bytes[20] = (bytes[20] ?? 0) ^ 1;
      response
        .writeHead(200, {
          "content-type": "application/vnd.oci.image.index.v1+json",
          "content-length": bytes.length,
        })
        .end(bytes);
    };
    const short: Handle = (_request, response) => {
      response.writeHead(200, {
        "content-type": "application/vnd.oci.image.index.v1+json",
        "content-length": MANIFEST.length,
      });
      response.write(MANIFEST.subarray(0, 5), () => response.destroy());
    };
    for (const bad of [wrong, short]) {
      await using both = await openSwarm(digest, [bad, manifest]);
      const answer = await ask(`${both.node.url}/v2/lib/app/manifests/${digest}?${NS}`);
      assert.deepEqual([answer.status, answer.body.toString()], [200, MANIFEST.toString()]);
      await using alone = await openSwarm(digest, [bad]);
      const refused = await ask(`${alone.node.url}/v2/lib/app/manifests/${digest}?${NS}`);
      assert.equal(refused.status, 404);
      assert.match(
        refused.body.toString(),
        /^\{"errors":\[\{"code":"MANIFEST_UNKNOWN","detail":\{"attempts":1\}/,
      );
    }
  });

  it("is not taken as a manifest when the peer's type is none", async () => {
    const html: Handle = (_request, response) =>
      response
        .writeHead(200, {
          "content-type": "text/html",
          "content-length": 4,
          "docker-content-digest": sha256Digest("page"),
        })
        .end("page");
    await using swarm = await openSwarm(key, [html]);
    assert.equal(
      (await ask(`${swarm.node.url}/v2/lib/app/manifests/1?${NS}`, { method: "HEAD" })).status,
      404,
    );
  });
});

describe("a mirror whose surroundings fail", () => {
  const blob = randomBytes(100);
  const digest = sha256Digest(blob);
  const path = `/v2/lib/app/blobs/${digest}?${NS}`;

  it("asks peers when its own store does not answer", async () => {
    await using swarm = await openSwarm(digest, [serving(blob)]);
    swarm.node.store.stat = () => Promise.reject(new Error("containerd is away"));
    const answer = await ask(`${swarm.node.url}${path}`);
    assert.ok(answer.status === 200 && answer.body.equals(blob));
    assert.equal(
      (await ask(`${swarm.node.url}${path}`, { headers: { "X-Spegel-Mirrored": "true" } })).status,
      404,
    );
  });

  it("answers 404 when the look-up itself fails or never ends", async () => {
    await using swarm = await openSwarm(digest, [], { resolveTimeoutMs: 20 });
    // biome-ignore lint/correctness/useYield: it fails before it could
    swarm.node.router.lookup = async function* () {
      throw new Error("the swarm is broken");
    };
    assert.equal((await ask(`${swarm.node.url}${path}`)).status, 404);
    // biome-ignore lint/correctness/useYield: it waits for the end of the request
    swarm.node.router.lookup = async function* (_key, { signal }) {
      await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
    };
    const answer = await ask(`${swarm.node.url}${path}`);
    assert.match(answer.body.toString(), /waited too long for new peer with no inflight fetches for sha256/);
  });
});

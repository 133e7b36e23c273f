// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { describe, it } from "node:test";
import { type ConnectionOptions, connect, TLSSocket } from "node:tls";
import type { Connection, Stream } from "@libp2p/interface";
import { eventually } from "#routing/testing";
import { contactOf } from "../contact.ts";
import type { Host, Security } from "../host.ts";
import { identifyPeer } from "./peer-certificate.ts";
import {
  agreeToTls,
  dialTlsEagerly,
  Field,
  forgeCertificate,
  HEADER,
  openHostWith,
  proposeTo,
} from "./testing.ts";

const signal = AbortSignal.timeout(180_000);

/** A host that answers each message on a stream with the same bytes. */
async function openEcho(
  options: {
    readonly security?: readonly Security[];
    readonly maxTlsConnections?: number;
    readonly seen?: Connection[];
  } = {},
): Promise<Host> {
  return openHostWith({
    ...options,
    signal,
    serve: (stream, connection) => {
      options.seen?.push(connection);
      stream.addEventListener("message", ({ data }) => {
        if (stream.status === "open") stream.send(data);
      });
    },
  });
}

function portOf(host: Host): number {
  return host.endpoints()[0]?.port ?? 0;
}

const addressOf = (host: Host): string => `/ip4/127.0.0.1/tcp/${portOf(host)}`;

/** Sends bytes over the stream and resolves with as many that came back. */
async function echo(stream: Stream, bytes: Uint8Array): Promise<Buffer> {
  const received: Uint8Array[] = [];
  let count = 0;
  const all = Promise.withResolvers<void>();
  stream.addEventListener("message", ({ data }) => {
    received.push(data.subarray());
    count += data.byteLength;
    if (count >= bytes.length) all.resolve();
  });
  stream.addEventListener("close", () => all.reject(new Error("the stream ended")));
  for (let at = 0; at < bytes.length; at += 65_536) {
    if (!stream.send(bytes.subarray(at, at + 65_536))) await stream.onDrain({ signal });
  }
  await all.promise;
  return Buffer.concat(received);
}

async function assertServing(host: Host): Promise<void> {
  await using friend = await openEcho({ security: ["tls"] });
  await friend.connect([addressOf(host)], { signal });
  const stream = await friend.openStream(host.self, { signal });
  assert.equal((await echo(stream, Buffer.from("still here"))).toString(), "still here");
}

/** Dials the host as a libp2p peer with these settings of TLS; what the host does then is in the events of the socket. */
async function dialTls(host: Host, options: ConnectionOptions): Promise<TLSSocket> {
  const raw = await proposeTo({ host: "127.0.0.1", port: portOf(host) });
  return connect({
    socket: raw,
    rejectUnauthorized: false,
    ALPNProtocols: ["/yamux/1.0.0", "libp2p"],
    ...options,
  }).on("error", () => {});
}

const certified = async (): Promise<{ readonly cert: string; readonly key: string }> => {
  const { certificate: cert, key } = await forgeCertificate();
  return { cert, key };
};

/** A peer that listens and says TLS with these certificates, to whoever dials. */
async function listenTls(options: {
  readonly cert: string;
  readonly key: string;
}): Promise<AsyncDisposable & { readonly address: string }> {
  const open = new Set<Socket>();
  const server = createServer((raw) => {
    open.add(raw.on("error", () => {}));
    agreeToTls(raw).then(
      () =>
        new TLSSocket(raw, { isServer: true, ...options, ALPNCallback: ({ protocols }) => protocols[0] }).on(
          "error",
          () => {},
        ),
      () => raw.destroy(),
    );
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    address: `/ip4/127.0.0.1/tcp/${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      for (const socket of open) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

describe("a connection over TLS", () => {
  it("carries streams in both directions, whatever their size, and is agreed on when one side has TLS alone", async () => {
    const seen: Connection[] = [];
    await using host = await openEcho({ seen });
    await using tlsOnly = await openEcho({ security: ["tls"], seen });
    for (const [from, to] of [
      [tlsOnly, host],
      [host, tlsOnly],
    ] as const) {
      await from.connect([addressOf(to)], { signal });
      for (const size of [1, 16_384, 3_000_000]) {
        const bytes = Buffer.alloc(size, "0123456789");
        assert.ok((await echo(await from.openStream(to.self, { signal }), bytes)).equals(bytes));
      }
    }
    assert.deepEqual(
      [...new Set(seen.map(({ encryption, multiplexer }) => `${encryption} ${multiplexer}`))],
      ["/tls/1.0.0 /yamux/1.0.0"],
    );
  });

  it("is not taken where both sides have Noise, and not agreed on with a peer that has Noise alone", async () => {
    const seen: Connection[] = [];
    await using host = await openEcho({ seen });
    for (const security of [undefined, ["noise"], ["tls", "noise"]] as const) {
      await using other = await openEcho(security === undefined ? {} : { security });
      await other.connect([addressOf(host)], { signal });
      await echo(await other.openStream(host.self, { signal }), Buffer.from("x"));
    }
    assert.deepEqual(
      seen.map(({ encryption }) => encryption),
      ["/noise", "/noise", "/tls/1.0.0"],
    );
    await using noiseOnly = await openEcho({ security: ["noise"] });
    await using tlsOnly = await openEcho({ security: ["tls"] });
    await assert.rejects(noiseOnly.connect([addressOf(tlsOnly)], { signal }), /could not negotiate/);
  });

  it("is not offered while there are as many as may be: who has Noise goes on with that, who has not comes later", async () => {
    const seen: Connection[] = [];
    await using host = await openEcho({ maxTlsConnections: 1, seen });
    await using later = await openEcho({ security: ["tls"] });
    {
      await using first = await openEcho({ security: ["tls"] });
      await using both = await openEcho({ security: ["tls", "noise"] });
      for (const each of [first, both]) {
        await each.connect([addressOf(host)], { signal });
        await echo(await each.openStream(host.self, { signal }), Buffer.from("x"));
      }
      await assert.rejects(later.connect([addressOf(host)], { signal }), /could not negotiate/);
    }
    const isReached = (): Promise<boolean> =>
      later.connect([addressOf(host)], { signal }).then(
        () => true,
        () => false,
      );
    await eventually(isReached, Boolean);
    assert.deepEqual(
      seen.map(({ encryption }) => encryption),
      ["/tls/1.0.0", "/noise"],
    );
  });

  it("tells who is there to a node that did not know, and refuses one that is not who was dialled", async () => {
    await using host = await openEcho({ security: ["tls"] });
    await using node = await openEcho();
    assert.equal(await node.connect([addressOf(host)], { signal }), host.self.peerId.toString());
    await using stranger = await openEcho();
    const wrong = `${addressOf(host)}/p2p/${node.self.peerId}`;
    await assert.rejects(stranger.connect([wrong], { signal }), new RegExp(`not of ${node.self.peerId}`));
    await assertServing(host);
  });

  it("is closed with what was sent before, and the other side learns of it", async () => {
    const seen: Connection[] = [];
    await using host = await openEcho({ seen });
    const closed = Promise.withResolvers<void>();
    {
      await using tlsOnly = await openEcho({ security: ["tls"] });
      await tlsOnly.connect([addressOf(host)], { signal });
      await echo(await tlsOnly.openStream(host.self, { signal }), Buffer.from("x"));
      seen[0]?.addEventListener("close", () => closed.resolve());
    }
    await closed.promise;
    assert.notEqual(seen[0]?.status, "open");
  });

  it("begins with what comes right behind the proposal", async () => {
    await using host = await openEcho();
    const target = { host: "127.0.0.1", port: portOf(host) };
    const socket = dialTlsEagerly(target, { ...(await certified()), ALPNProtocols: ["libp2p"] });
    await once(socket, "secureConnect");
    assert.equal(socket.alpnProtocol, "libp2p");
    socket.write(HEADER);
    const [answer] = (await once(socket, "data")) as [Buffer];
    assert.equal(answer.toString("latin1"), HEADER);
    socket.destroy();
  });

  it("agrees on the muxer within the handshake where the peer can, else after it", async () => {
    await using host = await openEcho();
    for (const [offered, agreed] of [
      [["/yamux/1.0.0", "libp2p"], "/yamux/1.0.0"],
      [["/other/1.0.0", "/yamux/1.0.0", "libp2p"], "/yamux/1.0.0"],
      [["libp2p", "/yamux/1.0.0"], "libp2p"],
      [["libp2p"], "libp2p"],
    ] as const) {
      const socket = await dialTls(host, { ...(await certified()), ALPNProtocols: [...offered] });
      await once(socket, "secureConnect");
      assert.equal(socket.alpnProtocol, agreed);
      const peer = await identifyPeer(socket.getPeerX509Certificate() as X509Certificate, {
        expected: host.self.peerId,
        nowMs: Date.now(),
      });
      assert.equal(contactOf(peer).id, host.self.id);
      socket.destroy();
    }
  });

  const refused: readonly (readonly [string, () => Promise<ConnectionOptions>])[] = [
    ["without a certificate", async () => ({})],
    [
      "with two certificates",
      async () => {
        const { cert, key } = await certified();
        return { cert: cert + (await certified()).cert, key };
      },
    ],
    [
      "with a certificate that another key signed",
      async () => {
        const { certificate: cert, key } = await forgeCertificate({ signer: (await certified()).key });
        return { cert, key };
      },
    ],
    [
      "with a certificate without the peer's key",
      async () => {
        const fields = (all: readonly Uint8Array[]): readonly Uint8Array[] => all.slice(0, Field.EXTENSIONS);
        const { certificate: cert, key } = await forgeCertificate({ fields });
        return { cert, key };
      },
    ],
    ["with TLS 1.2", async () => ({ ...(await certified()), maxVersion: "TLSv1.2" })],
    ["with no application protocol", async () => ({ ...(await certified()), ALPNProtocols: [] })],
    [
      "with an application protocol nobody here knows",
      async () => ({ ...(await certified()), ALPNProtocols: ["h2"] }),
    ],
  ];
  for (const [what, options] of refused)
    it(`is refused to a peer that dials ${what}`, async () => {
      await using host = await openEcho();
      const socket = await dialTls(host, await options());
      socket.resume();
      await new Promise((resolve) => socket.once("close", resolve));
      await assertServing(host);
    });

  for (const [what, why, options] of [
    ["two certificates", /more than one/, refused[1]?.[1]],
    ["a certificate that another key signed", /not signed by itself/, refused[2]?.[1]],
    ["a certificate without the peer's key", /version 3/, refused[3]?.[1]],
  ] as const)
    it(`is refused to a peer that answers with ${what}`, async () => {
      await using peer = await listenTls(
        (await options?.()) as { readonly cert: string; readonly key: string },
      );
      await using node = await openEcho();
      await assert.rejects(node.connect([peer.address], { signal }), why);
    });

  it("ends when the peer breaks off, sends what is no handshake, or breaks the record layer after it", async () => {
    await using host = await openEcho();
    const proposed = (): Promise<Socket> => proposeTo({ host: "127.0.0.1", port: portOf(host) });
    const breaking = await proposed();
    breaking.end(Buffer.from("1603010200010001fc0303", "hex"));
    const garbage = await proposed();
    garbage.write("GET / HTTP/1.1\r\n\r\n");
    const later = await proposed();
    const socket = connect({
      socket: later,
      rejectUnauthorized: false,
      ALPNProtocols: ["libp2p"],
      ...(await certified()),
    });
    socket.on("error", () => {});
    await once(socket, "secureConnect");
    later.write("what is no record, written below the TLS layer");
    for (const each of [breaking, garbage, socket]) {
      each.on("error", () => {}).resume();
      if (!each.destroyed) await new Promise((resolve) => each.once("close", resolve));
    }
    await assertServing(host);
  });
});

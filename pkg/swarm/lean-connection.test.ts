// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { describe, it } from "node:test";
import type { ConnectionEncrypter, StreamMuxerFactory } from "@libp2p/interface";
import { joinWrites, sparseWindowUpdates } from "./lean-connection.ts";

describe("a lean connection", () => {
  it("writes all parts of a frame at once", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const socket = connect((server.address() as AddressInfo).port, "127.0.0.1");
    const [received] = (await once(server, "connection")) as [Socket];
    try {
      const passed: unknown[] = [];
      const stock = {
        secureInbound: (connection: unknown) => passed.push(connection),
        secureOutbound: (connection: unknown) => passed.push(connection),
      };
      const encrypter = joinWrites(() => stock as unknown as ConnectionEncrypter)({});
      let corkedWrites = 0;
      const connection = {
        socket,
        sendData(parts: readonly string[]) {
          for (const part of parts) {
            if (socket.writableCorked === 1) corkedWrites++;
            socket.write(part);
          }
          return { sentBytes: 5, canSendMore: true };
        },
      };
      void encrypter.secureOutbound(connection as never);
      assert.equal(passed[0], connection);
      assert.deepEqual(connection.sendData(["ab", "cde"]), { sentBytes: 5, canSendMore: true });
      assert.equal(corkedWrites, 2);
      assert.equal(socket.writableCorked, 0);
      const [data] = (await once(received, "data")) as [Buffer];
      assert.equal(data.toString(), "abcde");
    } finally {
      socket.destroy();
      received.destroy();
      server.close();
    }
  });

  it("leaves connections without a socket as they are", () => {
    const send = (): void => {};
    const connection = { sendData: send };
    const stock = { secureInbound: () => {}, secureOutbound: () => {} };
    void joinWrites(() => stock as unknown as ConnectionEncrypter)({}).secureInbound(connection as never);
    assert.equal(connection.sendData, send);
  });

  it("gives the window back when half of it is used, and at once while a stream is opened", () => {
    let updates = 0;
    const stream = {
      state: 3,
      recvWindow: 100,
      recvWindowCapacity: 99,
      sendWindowUpdate: () => void updates++,
    };
    const muxer = { _newStream: () => stream };
    const factory = sparseWindowUpdates(
      () => ({ createStreamMuxer: () => muxer }) as unknown as StreamMuxerFactory,
    )({});
    factory.createStreamMuxer({} as never);
    const opened = muxer._newStream();
    opened.sendWindowUpdate();
    assert.equal(updates, 0);
    opened.recvWindowCapacity = 50;
    opened.sendWindowUpdate();
    assert.equal(updates, 1);
    opened.recvWindowCapacity = 100;
    for (const state of [0, 2]) {
      opened.state = state;
      opened.sendWindowUpdate();
    }
    assert.equal(updates, 3);
  });
});

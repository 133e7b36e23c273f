// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { createSystemdNotifier } from "./systemd-notify.ts";

const ffi = process.getBuiltinModule("node:ffi");

/** A datagram socket bound to `path`, as the service manager has one. */
function openReceiver(path: string) {
  assert.ok(ffi, "run with --experimental-ffi");
  const { functions } = ffi.dlopen(null, {
    socket: { arguments: ["int32", "int32", "int32"], return: "int32" },
    bind: { arguments: ["int32", "pointer", "uint32"], return: "int32" },
    recv: { arguments: ["int32", "pointer", "uint64", "int32"], return: "int64" },
    close: { arguments: ["int32"], return: "int32" },
  });
  const fd = functions.socket(1, 2, 0);
  const address = Buffer.allocUnsafeSlow(2 + Buffer.byteLength(path) + (path.startsWith("@") ? 0 : 1)).fill(
    0,
  );
  address.writeUInt16LE(1, 0);
  address.write(path, 2);
  if (path.startsWith("@")) address[2] = 0;
  assert.equal(functions.bind(fd, ffi.getRawPointer(address), address.length), 0);
  const buffer = Buffer.allocUnsafeSlow(256);
  return {
    /** The next message, or undefined when none has arrived. */
    receive(): string | undefined {
      const count = Number(functions.recv(fd, ffi.getRawPointer(buffer), 256n, 0x40));
      return count < 0 ? undefined : buffer.toString("utf8", 0, count);
    },
    [Symbol.dispose]: () => void functions.close(fd),
  };
}

describe("createSystemdNotifier", () => {
  it("sends its messages to a path and to an abstract name", async () => {
    const directory = await mkdtemp(join(tmpdir(), "notify-"));
    try {
      for (const path of [join(directory, "socket"), `@registry-spegel-test-${process.pid}`]) {
        using receiver = openReceiver(path);
        using notifier = createSystemdNotifier({ NOTIFY_SOCKET: path });
        assert.equal(notifier.active, true);
        notifier.notify("READY=1");
        notifier.notify("STOPPING=1");
        assert.deepEqual(
          [receiver.receive(), receiver.receive(), receiver.receive()],
          ["READY=1", "STOPPING=1", undefined],
        );
      }
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  it("keeps sending from the event loop what the watchdog waits for", async (t) => {
    t.mock.timers.enable({ apis: ["setInterval"] });
    const path = `@registry-spegel-watchdog-${process.pid}`;
    using receiver = openReceiver(path);
    {
      using _notifier = createSystemdNotifier({ NOTIFY_SOCKET: path, WATCHDOG_USEC: "9000000" });
      assert.equal(receiver.receive(), undefined);
      t.mock.timers.tick(3000);
      t.mock.timers.tick(3000);
      assert.deepEqual(
        [receiver.receive(), receiver.receive(), receiver.receive()],
        ["WATCHDOG=1", "WATCHDOG=1", undefined],
      );
    }
    t.mock.timers.tick(9000);
    assert.equal(receiver.receive(), undefined);
  });

  it("does nothing without a service manager, with a dead one, or with an impossible path", () => {
    for (const path of [
      undefined,
      "",
      "/nonexistent/socket",
      "@nobody-listens-here",
      `/${"x".repeat(200)}`,
    ]) {
      using notifier = createSystemdNotifier({ NOTIFY_SOCKET: path, WATCHDOG_USEC: "1000000" });
      notifier.notify("READY=1");
    }
  });
});

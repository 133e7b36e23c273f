// SPDX-License-Identifier: Apache-2.0
/**
 * sd_notify(3): tells systemd that the daemon is ready, stopping, and alive.
 *
 * Node has no Unix datagram sockets, so three calls of the C library are made through `node:ffi`; one message costs
 * about 16 us and no helper process. The keep-alive is sent by the event loop itself: a daemon whose loop hangs
 * stops sending and is restarted, which matters because containerd waits for minutes for a mirror that accepts a
 * connection and does not answer.
 */

/** Messages to the service manager. Without one, or without `node:ffi`, nothing is sent. */
export interface SystemdNotifier extends Disposable {
  /** True when somebody listens. */
  readonly active: boolean;
  notify(state: "READY=1" | "STOPPING=1" | "WATCHDOG=1"): void;
}

const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC_NONBLOCK = 2 | 0o2000000 | 0o4000;
const MSG_NOSIGNAL = 0x4000;
// struct sockaddr_un: two bytes of family, then the path.
const MAX_PATH_BYTES = 107;

/** @param environment NOTIFY_SOCKET (path, or `@name` for an abstract one) and WATCHDOG_USEC as systemd sets them */
export function createSystemdNotifier(
  environment: Readonly<Record<string, string | undefined>>,
): SystemdNotifier {
  const send = openSocket(environment["NOTIFY_SOCKET"]);
  const watchdogMs = Number(environment["WATCHDOG_USEC"] ?? 0) / 1000;
  const notify = (state: string): void => send?.(Buffer.from(state));
  const timer =
    send !== undefined && watchdogMs > 0
      ? setInterval(() => notify("WATCHDOG=1"), Math.max(100, watchdogMs / 3)).unref()
      : undefined;
  return {
    active: send !== undefined,
    notify,
    [Symbol.dispose]: () => clearInterval(timer),
  };
}

function openSocket(path: string | undefined): ((message: Buffer) => void) | undefined {
  if (path === undefined || path === "" || Buffer.byteLength(path) > MAX_PATH_BYTES) return undefined;
  try {
    const ffi = process.getBuiltinModule("node:ffi");
    if (ffi === undefined) return undefined;
    const { functions } = ffi.dlopen(null, {
      socket: { arguments: ["int32", "int32", "int32"], return: "int32" },
      sendto: { arguments: ["int32", "pointer", "uint64", "int32", "pointer", "uint32"], return: "int64" },
    });
    const fd = functions.socket(AF_UNIX, SOCK_DGRAM_CLOEXEC_NONBLOCK, 0);
    if (fd < 0) return undefined;
    const address = socketAddress(path);
    return (message) => {
      const bytes = Buffer.allocUnsafeSlow(message.length);
      message.copy(bytes);
      functions.sendto(
        fd,
        ffi.getRawPointer(bytes),
        BigInt(bytes.length),
        MSG_NOSIGNAL,
        ffi.getRawPointer(address),
        address.length,
      );
    };
  } catch {
    return undefined; // an experimental module: any failure means that it is not here
  }
}

/** A `sockaddr_un` outside of the moving heap; a leading `@` stands for the zero byte of an abstract name. */
function socketAddress(path: string): Buffer {
  const name = Buffer.from(path);
  const isAbstract = name[0] === 0x40;
  const address = Buffer.allocUnsafeSlow(2 + name.length + (isAbstract ? 0 : 1)).fill(0);
  address.writeUInt16LE(AF_UNIX, 0);
  name.copy(address, 2);
  if (isAbstract) address[2] = 0;
  return address;
}

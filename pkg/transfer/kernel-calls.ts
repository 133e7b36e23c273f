// SPDX-License-Identifier: Apache-2.0

/** Linux error numbers that are told apart; the same on x86-64 and arm64. */
export const EIO = 5;
export const EAGAIN = 11;
export const EPIPE = 32;
export const ECONNRESET = 104;

/** preadv2: answer EAGAIN instead of waiting for the disk. */
const RWF_NOWAIT = 8;

/** Levels and names of socket options, of Linux. */
const SOL_SOCKET = 1;
const SO_RCVBUF = 8;
const IPPROTO_TCP = 6;
const TCP_NOTSENT_LOWAT = 25;

/** System calls that Node does not offer. Results follow the kernel: a count, or a negated error number. */
export interface KernelCalls {
  /** sendfile(2) from `offset`; the file's own position is neither used nor changed. 0 at the end of the file. */
  sendfile(socketFd: number, fileFd: number, offset: number, lengthBytes: number): number;
  /** Reads into the start of `buffer` what lies in the page cache, never waiting for a disk: else -EAGAIN. */
  readCached(fileFd: number, buffer: Buffer, lengthBytes: number, offset: number): number;
  /** Fixes the receive buffer of a socket, its bookkeeping included, in place of the kernel's own sizing; for good. */
  limitUnread(socketFd: number, sizeBytes: number): number;
  /** Bounds what a TCP socket takes beyond what it has sent. */
  limitUnsent(socketFd: number, sizeBytes: number): number;
}

let opened: KernelCalls | undefined | null = null;

/** The calls through `node:ffi`; undefined where Node lacks it (or was told so) or the C library has other names. */
export function kernelCalls(): KernelCalls | undefined {
  if (opened === null) opened = openKernelCalls();
  return opened;
}

function openKernelCalls(): KernelCalls | undefined {
  if (process.platform !== "linux" || (process.arch !== "x64" && process.arch !== "arm64")) return undefined;
  try {
    return bind();
  } catch {
    return undefined; // an experimental module: any failure means "not here", and the ring does the work
  }
}

function bind(): KernelCalls | undefined {
  const ffi = process.getBuiltinModule("node:ffi");
  if (ffi === undefined) return undefined;
  const { functions } = ffi.dlopen(null, {
    sendfile: { arguments: ["int32", "int32", "pointer", "uint64"], return: "int64" },
    preadv2: { arguments: ["int32", "pointer", "int32", "int64", "int32"], return: "int64" },
    setsockopt: { arguments: ["int32", "int32", "int32", "pointer", "uint32"], return: "int32" },
    __errno_location: { arguments: [], return: "pointer" },
  });
  // Calls are synchronous and this thread's own, so one cell for each out-parameter is enough. The cells live
  // outside of the moving heap: their addresses are good as long as the closures below keep them.
  const offsetCell = new BigInt64Array(Buffer.allocUnsafeSlow(8).buffer);
  const offsetPointer = ffi.getRawPointer(offsetCell);
  const vectorCell = new BigUint64Array(Buffer.allocUnsafeSlow(16).buffer);
  const vectorPointer = ffi.getRawPointer(vectorCell);
  const valueCell = new Int32Array(Buffer.allocUnsafeSlow(4).buffer);
  const valuePointer = ffi.getRawPointer(valueCell);
  const errnoPointer = functions.__errno_location();

  const result = (count: bigint): number => (count < 0n ? -ffi.getInt32(errnoPointer) : Number(count));

  function setOption(socketFd: number, level: number, name: number, value: number): number {
    valueCell[0] = value;
    return result(BigInt(functions.setsockopt(socketFd, level, name, valuePointer, valueCell.byteLength)));
  }

  return {
    // The kernel doubles the value.
    limitUnread: (socketFd, sizeBytes) => setOption(socketFd, SOL_SOCKET, SO_RCVBUF, sizeBytes / 2),
    limitUnsent: (socketFd, sizeBytes) => setOption(socketFd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, sizeBytes),
    sendfile(socketFd, fileFd, offset, lengthBytes) {
      offsetCell[0] = BigInt(offset);
      return result(functions.sendfile(socketFd, fileFd, offsetPointer, BigInt(lengthBytes)));
    },
    readCached(fileFd, buffer, lengthBytes, offset) {
      vectorCell[0] = ffi.getRawPointer(buffer);
      vectorCell[1] = BigInt(Math.min(lengthBytes, buffer.length));
      return result(functions.preadv2(fileFd, vectorPointer, 1, BigInt(offset), RWF_NOWAIT));
    },
  };
}

// SPDX-License-Identifier: Apache-2.0

const KIB = 1024;
const MIB = 1024 * KIB;

/** What the kernel may hold of one transfer, on each side. `release` gives it back once. */
export interface SocketShare {
  readonly sizeBytes: number;
  /** True when so many transfers run that the kernel's own sizing of receive buffers is too generous. */
  readonly isSmall: boolean;
  release(): void;
}

/**
 * Bounds what the kernel holds in the buffers of sockets while a receiver is slower than its source. Left alone it lets
 * them grow to some MiB each: control groups of version 2 count them against the daemon's memory, and they cannot be
 * dropped as page cache can.
 */
export interface SocketBudget {
  /** A quarter of what is left, so that few transfers have large windows and many small ones. Never refused. */
  lease(): SocketShare;
  readonly leasedBytes: number;
}

/** Enough for 10 Gbit/s over 1.6 ms. */
const MAX_SHARE_BYTES = 2 * MIB;
const MIN_SHARE_BYTES = 64 * KIB;
const SHARES = 4;
/** The sixth transfer and those behind it get less. */
const SMALL_SHARE_BYTES = 512 * KIB;

/** @param limitBytes of all shares together, those of 64 KiB that are given beyond it not counted */
export function createSocketBudget(limitBytes = SHARES * MAX_SHARE_BYTES): SocketBudget {
  let leasedBytes = 0;
  return {
    get leasedBytes() {
      return leasedBytes;
    },
    lease() {
      const wanted = Math.floor((limitBytes - leasedBytes) / SHARES);
      const sizeBytes = Math.max(MIN_SHARE_BYTES, Math.min(MAX_SHARE_BYTES, wanted));
      leasedBytes += sizeBytes;
      let released = false;
      return {
        sizeBytes,
        isSmall: sizeBytes < SMALL_SHARE_BYTES,
        release() {
          if (released) return;
          released = true;
          leasedBytes -= sizeBytes;
        },
      };
    },
  };
}

/** Those of this process, as the buffers it leases: the bound is on the memory of the process. */
export const socketBudget: SocketBudget = createSocketBudget();

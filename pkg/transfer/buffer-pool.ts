// SPDX-License-Identifier: Apache-2.0

const KIB = 1024;
const MIB = 1024 * KIB;

/** A buffer lent to one transfer. `release` gives it back once; nothing may touch it afterwards. */
export interface BufferLease {
  readonly buffer: Buffer;
  release(): void;
}

/** Large buffers that are used again instead of allocated, under one hard bound. */
export interface BufferPool {
  /** A buffer, or a place in the queue when the bound is reached. Rejects with the signal's reason. */
  lease(options: { readonly signal: AbortSignal }): Promise<BufferLease>;
  /** Bytes lent out now. */
  readonly leasedBytes: number;
  /** Bytes kept for the next lease. */
  readonly freeBytes: number;
}

export interface BufferPoolOptions {
  /** Most bytes lent out at once; default 12 MiB. */
  readonly limitBytes?: number;
  /** Free buffers are given back to the system when none was used for this long; default 10 s. */
  readonly idleTimeoutMs?: number;
}

/**
 * Sizes by load: few transfers get large buffers, because the fewer steps a body takes the less it costs, many get
 * small ones, because memory is what bounds them. With 12 MiB: 8 buffers of 512 KiB, 8 of 256 KiB, 16 of 128 KiB,
 * 32 of 64 KiB and 64 of 32 KiB; the 129th transfer waits.
 */
const SIZES = [
  { sizeBytes: 512 * KIB, untilShare: 2 / 6 },
  { sizeBytes: 256 * KIB, untilShare: 3 / 6 },
  { sizeBytes: 128 * KIB, untilShare: 4 / 6 },
  { sizeBytes: 64 * KIB, untilShare: 5 / 6 },
  { sizeBytes: 32 * KIB, untilShare: 1 },
] as const;

export function createBufferPool(options: BufferPoolOptions = {}): BufferPool {
  const limitBytes = options.limitBytes ?? 12 * MIB;
  const idleTimeoutMs = options.idleTimeoutMs ?? 10_000;
  const free = new Map<number, Buffer[]>();
  const waiters = new Set<(lease: BufferLease) => void>();
  let leasedBytes = 0;
  let freeBytes = 0;
  let trimTimer: NodeJS.Timeout | undefined;

  function tryLease(): BufferLease | undefined {
    for (const { sizeBytes, untilShare } of SIZES) {
      if (leasedBytes + sizeBytes <= limitBytes * untilShare) return lend(sizeBytes);
    }
    return undefined;
  }

  function lend(sizeBytes: number): BufferLease {
    const kept = free.get(sizeBytes)?.pop();
    if (kept !== undefined) freeBytes -= sizeBytes;
    const buffer = kept ?? Buffer.allocUnsafeSlow(sizeBytes);
    leasedBytes += sizeBytes;
    dropBeyondLimit();
    let released = false;
    return {
      buffer,
      release() {
        if (released) return;
        released = true;
        takeBack(buffer);
      },
    };
  }

  function takeBack(buffer: Buffer): void {
    const sizeBytes = buffer.length;
    leasedBytes -= sizeBytes;
    const kept = free.get(sizeBytes);
    if (kept === undefined) free.set(sizeBytes, [buffer]);
    else kept.push(buffer);
    freeBytes += sizeBytes;
    serveWaiters();
    scheduleTrim();
  }

  function serveWaiters(): void {
    for (const grant of waiters) {
      const lease = tryLease();
      if (lease === undefined) return;
      waiters.delete(grant);
      grant(lease);
    }
  }

  /** Lent and free buffers together stay under the bound: another size may lie unused while this one is wanted. */
  function dropBeyondLimit(): void {
    for (const buffers of free.values()) {
      while (leasedBytes + freeBytes > limitBytes && buffers.length > 0) drop(buffers);
    }
  }

  function drop(buffers: Buffer[]): void {
    const buffer = buffers.pop();
    if (buffer === undefined) return;
    freeBytes -= buffer.length;
    // Frees the memory now; left to the collector it would stay for a long time, being only a few objects.
    (buffer.buffer as ArrayBuffer).transfer(0);
  }

  function scheduleTrim(): void {
    if (trimTimer !== undefined) {
      trimTimer.refresh();
      return;
    }
    trimTimer = setTimeout(() => {
      trimTimer = undefined;
      for (const buffers of free.values()) while (buffers.length > 0) drop(buffers);
    }, idleTimeoutMs);
    trimTimer.unref();
  }

  return {
    get leasedBytes() {
      return leasedBytes;
    },
    get freeBytes() {
      return freeBytes;
    },
    async lease({ signal }) {
      signal.throwIfAborted();
      const lease = waiters.size === 0 ? tryLease() : undefined;
      if (lease !== undefined) return lease;
      return new Promise<BufferLease>((resolve, reject) => {
        const onAbort = (): void => {
          waiters.delete(grant);
          reject(signal.reason as Error);
        };
        const grant = (granted: BufferLease): void => {
          signal.removeEventListener("abort", onAbort);
          resolve(granted);
        };
        waiters.add(grant);
        signal.addEventListener("abort", onAbort, { once: true });
      });
    },
  };
}

/**
 * The pool of this process. It is the one piece of module state here: the bound is on the memory of the process,
 * so two pools would be two bounds.
 */
export const transferBuffers: BufferPool = createBufferPool();

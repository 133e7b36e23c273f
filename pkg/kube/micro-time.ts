// SPDX-License-Identifier: Apache-2.0

/** meta/v1 MicroTime: RFC 3339 in UTC with exactly six fractional digits, e.g. `2026-08-21T10:00:00.000000Z`. */
export function formatMicroTime(timeMs: number): string {
  return new Date(timeMs).toISOString().replace(/Z$/, "000Z");
}

/** meta/v1 Time: whole seconds, cut and never rounded up: readers compare it with times they wrote themselves. */
export function formatTime(timeMs: number): string {
  return `${new Date(timeMs).toISOString().slice(0, 19)}Z`;
}

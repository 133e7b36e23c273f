// SPDX-License-Identifier: Apache-2.0
import type { ImageLayout } from "../kit/image-maker/index.ts";

/** An image that the upstream registry holds and the nodes pull. */
export interface DemoImage {
  /** For the table. */
  readonly name: string;
  readonly repository: string;
  readonly tag: string;
  readonly layout: ImageLayout;
}

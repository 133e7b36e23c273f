// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { binaryBytes, binaryString, cidOf, kademliaIdOf, multihashOf } from "./key.ts";

/** Computed by Spegel: key string, CID, multihash, Kademlia id. */
const VECTORS = [
  [
    "foobar",
    "bafkreigdvoh7cnza5cwzar65hfdgwpejotszfqx2ha6uuolaofgk54ge6i",
    "1220c3ab8ff13720e8ad9047dd39466b3c8974e592c2fa383d4a3960714caef0c4f2",
    "bd8506b070010a16a922a8f14536e7390f5f265c7515c00783bb98b58c2e444f",
  ],
  [
    "docker.io/library/busybox:1.37.0",
    "bafkreifdixuobjojcs6sm3w52326ep262547uydcgu5g5vge432a5tk4na",
    "1220a345e8e0a5c914bd266eddd6f5e23f5ed779fa6062353a6ed4c4e6f40ecd5c68",
    "6d50279080b0d75d65bf160d45c02a280e3fb95a3163cf14e37a7049e753026d",
  ],
  [
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "bafkreiadmttyx2evz34sjg4dwignwy3czu6dc72veqdgsysclc6ejgug7q",
    "12200364e78be895cef9249b83b20cdb6362cd3c317f55240669624258bc449a86fc",
    "0296ebce547e78b705fed4e738ca9f9fa74d9c0dbdf3f3e76c80c663aa2c332d",
  ],
] as const;

describe("keys", () => {
  for (const [key, cid, multihash, kademliaId] of VECTORS) {
    it(`have Spegel's CID, multihash and place in the key space: ${key}`, () => {
      assert.equal(cidOf(key), cid);
      assert.equal(multihashOf(key).toString("hex"), multihash);
      assert.equal(kademliaIdOf(multihashOf(key)).toString("hex"), kademliaId);
    });
  }

  it("survive the way into a string and back", () => {
    fc.assert(
      fc.property(fc.uint8Array(), (bytes) =>
        assert.deepEqual(new Uint8Array(binaryBytes(binaryString(bytes))), bytes),
      ),
    );
  });
});

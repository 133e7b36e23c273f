// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { directoryChanges } from "./index.ts";

const HOUR_MS = 3_600_000;
let directory: string;
let stop: AbortController;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "changes-"));
  stop = new AbortController();
});

afterEach(async () => {
  stop.abort();
  await rm(directory, { recursive: true, force: true });
});

describe("directoryChanges", () => {
  it("yields when a file is written and when a link is swapped", async () => {
    await mkdir(join(directory, "..1"));
    await mkdir(join(directory, "..2"));
    await symlink("..1", join(directory, "..data"));
    const changes = directoryChanges(directory, { signal: stop.signal, pollMs: HOUR_MS });
    await changes.next(); // watching from here on
    const first = changes.next();
    await writeFile(join(directory, "a"), "1");
    assert.equal((await first).done, false);
    await symlink("..2", join(directory, "..data_tmp"));
    await rename(join(directory, "..data_tmp"), join(directory, "..data"));
    assert.equal((await changes.next()).done, false);
  });

  it("yields by time where the folder cannot be watched", async () => {
    const changes = directoryChanges(join(directory, "absent"), { signal: stop.signal, pollMs: 1 });
    assert.equal((await changes.next()).done, false);
    assert.equal((await changes.next()).done, false);
    assert.equal((await changes.next()).done, false);
  });

  it("ends when the signal aborts", async () => {
    const changes = directoryChanges(directory, { signal: stop.signal, pollMs: HOUR_MS });
    assert.equal((await changes.next()).done, false);
    const next = changes.next();
    stop.abort();
    assert.equal((await next).done, true);
    assert.equal((await directoryChanges(directory, { signal: stop.signal, pollMs: 1 }).next()).done, true);
  });
});

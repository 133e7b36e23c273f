// SPDX-License-Identifier: Apache-2.0
import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type MeasuredProcess, startPinned } from "./measured-process.ts";

/** What `nginx -v` says, undefined where there is none. */
export function nginxVersion(): string | undefined {
  const result = spawnSync("nginx", ["-v"], { encoding: "utf8" });
  return result.status === 0 ? result.stderr.trim().replace("nginx version: ", "") : undefined;
}

export interface Nginx extends MeasuredProcess {
  readonly port: number;
}

/**
 * One worker, pinned; files with sendfile, `/proxied/` passed on to `peerPort` with buffering and kept connections.
 * The buffers are as large as ours: with nginx's default of 8 x 4 KiB its proxying is slower.
 */
export async function startNginx(options: {
  readonly cpu: string;
  readonly folder: string;
  readonly filesFolder: string;
  readonly peerPort?: number;
}): Promise<Nginx> {
  const port = await freePort();
  const home = join(options.folder, `nginx-${port}`);
  mkdirSync(home);
  const proxied =
    options.peerPort === undefined
      ? ""
      : `location /proxied/ { proxy_pass http://peer/; proxy_http_version 1.1; proxy_set_header Connection "";
           proxy_buffering on; proxy_buffer_size 64k; proxy_buffers 8 256k; proxy_busy_buffers_size 512k; proxy_max_temp_file_size 0; }
         location /default/ { proxy_pass http://peer/; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_max_temp_file_size 0; }`;
  const upstream =
    options.peerPort === undefined
      ? ""
      : `upstream peer { server 127.0.0.1:${options.peerPort}; keepalive 64; }`;
  const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
    (name) => `${name}_temp_path ${home}/${name};`,
  );
  writeFileSync(
    join(home, "nginx.conf"),
    `daemon off; user root; worker_processes 1; pid ${home}/pid; error_log ${home}/error.log;
     events { worker_connections 1024; }
     http { ${paths.join(" ")} access_log off; sendfile on; keepalive_requests 100000000; default_type application/octet-stream;
       ${upstream}
       server { listen 127.0.0.1:${port} backlog=1024; root ${options.filesFolder}; ${proxied} } }`,
  );
  const running = startPinned(options.cpu, [
    "nginx",
    "-p",
    home,
    "-e",
    join(home, "error.log"),
    "-c",
    join(home, "nginx.conf"),
  ]);
  await listening(port);
  return { ...running, port };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function listening(port: number): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const accepted = await new Promise<boolean>((resolve) => {
      const socket = connect(port, "127.0.0.1");
      socket.once("connect", () => (socket.destroy(), resolve(true)));
      socket.once("error", () => resolve(false));
    });
    if (accepted) return;
    await delay(50);
  }
  throw new Error(`nothing listens on port ${port}`);
}

// SPDX-License-Identifier: Apache-2.0
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { isIP } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

/** A certificate as one end shows it, and the authorities that the other end trusts. All PEM. */
export interface Chain {
  readonly what: string;
  readonly authorities: string;
  readonly leaf: string;
  readonly usage: "server" | "client";
  /** DNS name or IP address that must be in it. */
  readonly host?: string;
  /** When it is judged, in seconds since 1970; default now. */
  readonly at?: number;
}

/** By verifier, then in the order of the chains: what is wrong, or an empty text. */
export type Verdicts = Readonly<Record<"go" | "openssl", readonly string[]>>;

const VERIFIER = fileURLToPath(new URL("verifier/main.go", import.meta.url));
const run = promisify(execFile);

/** Lets Go's crypto/x509 and OpenSSL judge chains. */
export async function verifyChains(chains: readonly Chain[]): Promise<Verdicts> {
  const timed = chains.map((chain) => ({ at: Math.floor(Date.now() / 1000), ...chain }));
  const directory = await mkdtemp(join(tmpdir(), "chains-"));
  try {
    const [go, openssl] = await Promise.all([judgeByGo(timed, directory), judgeByOpenSSL(timed, directory)]);
    return { go, openssl };
  } finally {
    await rm(directory, { recursive: true });
  }
}

async function judgeByGo(chains: readonly Chain[], directory: string): Promise<string[]> {
  const program = join(directory, "verifier");
  await run("go", ["build", "-o", program, VERIFIER], { env: { ...process.env, CGO_ENABLED: "0" } });
  const child = spawn(program, { stdio: ["pipe", "pipe", "inherit"] });
  child.stdin.end(JSON.stringify(chains));
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text));
  const [code] = (await once(child, "close")) as [number];
  if (code !== 0) throw new Error(`the verifier ended with ${code}`);
  return JSON.parse(output) as string[];
}

async function judgeByOpenSSL(chains: readonly Chain[], directory: string): Promise<string[]> {
  const problems: string[] = [];
  for (const [index, { authorities, leaf, usage, host, at }] of chains.entries()) {
    const [authoritiesFile, leafFile] = ["authorities", "leaf"].map((name) =>
      join(directory, `${name}-${index}`),
    );
    await writeFile(authoritiesFile as string, authorities);
    await writeFile(leafFile as string, leaf);
    const name = host === undefined ? [] : [isIP(host) === 0 ? "-verify_hostname" : "-verify_ip", host];
    const options = ["-x509_strict", "-purpose", `ssl${usage}`, "-attime", `${at}`, ...name];
    const args = ["verify", ...options, "-CAfile", authoritiesFile as string, leafFile as string];
    problems.push(
      await run("openssl", args).then(
        () => "",
        (error: Error & { readonly stderr?: string }) => error.stderr || error.message,
      ),
    );
  }
  return problems;
}

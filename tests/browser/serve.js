// @ts-check
// `parley serve --demo` for the programs of this folder that are no tests: bin/parley, on a port of its own, with data that is thrown away.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const LIMITS = ["--http-rate", "100000", "--http-burst", "100000", "--message-burst", "100000", "--messages-per-minute", "6000000", "--frames-per-second", "100000"];

/** Starts it. @returns {Promise<{url: string, stop: () => Promise<void>}>} */
export async function serve() {
  const data = mkdtempSync(join(tmpdir(), "parley-web-"));
  const binary = fileURLToPath(new URL("../../bin/parley", import.meta.url));
  const p = spawn(binary, ["serve", "--demo", "--http", "127.0.0.1:0", "--data", data, "--log-level", "error", ...LIMITS], { stdio: ["ignore", "pipe", "ignore"] });
  process.once("exit", () => p.kill("SIGKILL")); // also when the program fails
  const ended = new Promise((resolve) => p.once("exit", resolve));
  for await (const line of createInterface({ input: p.stdout })) {
    if (!line.startsWith("ready ")) continue;
    p.stdout.resume();
    return {
      url: line.slice("ready ".length),
      stop: async () => {
        p.kill("SIGKILL");
        await ended;
        rmSync(data, { recursive: true, force: true });
      },
    };
  }
  throw new Error(`${binary} serve has ended; is it built (make build)?`);
}

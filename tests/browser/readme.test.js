// @ts-check
// Every JavaScript example of the READMEs runs as it stands, against a server with the demo users.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { promisify } from "node:util";
import { url } from "./lib.js";

const sdk = new URL("../../client/js/index.js", import.meta.url).href;

for (const file of ["README.md", "client/js/README.md"]) {
  const text = readFileSync(new URL("../../" + file, import.meta.url), "utf8");
  const blocks = [...text.matchAll(/^```js\n([\s\S]*?)^```$/gm)].map((m) => m[1]);
  test(`${file} has examples`, () => assert.ok(blocks.length > 0));
  for (const [i, block] of blocks.entries()) {
    test(`${file}: example ${i + 1}`, { timeout: 60_000 }, async () => {
      const code = block.replaceAll("http://127.0.0.1:8080", url).replaceAll('"parley-client"', JSON.stringify(sdk)).replaceAll('"./client/js/index.js"', JSON.stringify(sdk));
      const { stderr } = await promisify(execFile)(process.execPath, ["--input-type=module", "--eval", code], { timeout: 50_000 });
      assert.equal(stderr, "");
    });
  }
}

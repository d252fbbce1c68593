// @ts-check
// What can be said without a server: types, vendored libraries, the lock file.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";

const root = new URL("../../", import.meta.url);
const read = (/** @type {string} */ path) => readFileSync(new URL(path, root), "utf8");
const files = ["client/js/", "services/gateway/web/static/", "tests/browser/", "tests/sdk/"].flatMap((dir) => readdirSync(new URL(dir, root)).filter((f) => f.endsWith(".js")).map((f) => dir + f));

test("types", () => {
  for (const f of files) assert.ok(read(f).startsWith("// @ts-check\n"), `${f} is not checked`);
  try {
    execFileSync("node_modules/.bin/tsc", ["-p", "."], { cwd: new URL("tests/browser/", root), encoding: "utf8" });
  } catch (e) {
    assert.fail(/** @type {any} */ (e).stdout);
  }
});

// The files that are served are those of the packages, byte for byte, in the versions of the lock file.
for (const [name, file] of [["preact", "preact.mjs"], ["htm", "htm.mjs"]]) {
  test(`vendored ${name}`, () => {
    assert.equal(read(`services/gateway/web/static/vendor/${file}`), read(`tests/browser/node_modules/${name}/dist/${file}`));
    assert.equal(read(`services/gateway/web/static/vendor/${name}.LICENSE`), read(`tests/browser/node_modules/${name}/LICENSE`));
    const installed = JSON.parse(read(`tests/browser/node_modules/${name}/package.json`)).version;
    assert.equal(JSON.parse(read("tests/browser/package.json")).devDependencies[name], installed);
    assert.ok(read("services/gateway/web/static/vendor/VERSIONS").includes(`${name} ${installed}\n`), "VERSIONS");
  });
}

test("the lock file names no registry", () => {
  assert.doesNotMatch(read("tests/browser/package-lock.json"), /"resolved"/);
});

test("the SDK has no dependencies", () => {
  const p = JSON.parse(read("client/js/package.json"));
  assert.deepEqual([p.dependencies, p.devDependencies, p.peerDependencies], [undefined, undefined, undefined]);
  for (const f of files.filter((f) => f.startsWith("client/js/"))) {
    for (const m of read(f).matchAll(/(?:from|import\() ?"([^"]+)"/g)) assert.match(m[1], /^(\.\/|node:)/, f);
    if (!f.includes("node-")) assert.doesNotMatch(read(f), /"node:/, `${f} is for browsers too`);
  }
});

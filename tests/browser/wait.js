// @ts-check
import assert from "node:assert/strict";

/**
 * Polls until f gives something true.
 * @template T
 * @param {string} what
 * @param {() => T | Promise<T>} f
 * @param {number} [ms]
 */
export async function eventually(what, f, ms = 20_000) {
  const end = Date.now() + ms;
  for (;;) {
    const got = await f();
    if (got) return got;
    if (Date.now() > end) assert.fail(`not within ${ms} ms: ${what}`);
    await new Promise((r) => setTimeout(r, 25));
  }
}

// @ts-check
// What the Node side of these tests shares. Go starts the servers and gives their addresses in the environment:
// PARLEY_URL (where clients go) and PARLEY_CONTROL (POST /kill and /start end and start a gateway, or all of Parley; /erase/NAME erases a user).
import assert from "node:assert/strict";
import { Parley } from "../../client/js/index.js";

export { eventually } from "./wait.js";

export const url = must("PARLEY_URL");
export const PASSWORD = "correct horse battery";

/** @param {string} name */
function must(name) {
  const v = process.env[name];
  if (!v) throw new Error(`${name} is not set; these tests are started by "go test ./browser"`);
  return v;
}

/** @param {string} what */
export async function control(what) {
  const resp = await fetch(must("PARLEY_CONTROL") + what, { method: "POST" });
  assert.equal(resp.status, 200, await resp.text());
}

/**
 * The texts of messages by their place, after a look at the order in which they came: only what is late may come after younger ones.
 * @param {import("../../client/js/api.js").Message[]} came
 */
export function inOrder(came) {
  let top = 0;
  for (const m of came) {
    assert.ok(m.late || m.seq > top, `${m.content} comes after younger ones and is not marked as late`);
    top = Math.max(top, m.seq);
  }
  return [...came].sort((a, b) => a.seq - b.seq).map((m) => m.content);
}

let users = 0;

/** Registers a user whose name begins with base. @param {string} base */
export async function user(base) {
  const api = new Parley(url);
  const name = `${base}-${process.pid}-${++users}`;
  await api.register(name, PASSWORD);
  return { name, api, session: await api.login(name, PASSWORD) };
}

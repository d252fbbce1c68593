// @ts-check
// The SDK against three gateways behind one address, one of them killed.
import assert from "node:assert/strict";
import { test } from "node:test";
import { roomOf } from "../../client/js/index.js";
import { control, eventually, inOrder, user } from "./lib.js";

test("a gateway of three is killed under six pairs: nothing lost, nothing doubled, in order", { timeout: 180_000 }, async () => {
  const fast = { minBackoff: 50, maxBackoff: 1000 };
  const want = Array.from({ length: 40 }, (_, i) => `m${i}`);
  let half = 0;
  const pairs = [];
  for (let i = 0; i < 6; i++) {
    const [x, y] = [await user("x"), await user("y")];
    const room = roomOf(x.name, y.name);
    const cx = x.session.connect(fast), cy = y.session.connect(fast);
    /** @type {import("../../client/js/api.js").Message[]} */
    const got = [];
    cy.on("message", (m) => void got.push(m));
    await Promise.all([cx.next("caughtUp"), cy.next("caughtUp")]);
    pairs.push({ room, cx, cy, got });
  }
  let broken = 0;
  for (const p of pairs) for (const c of [p.cx, p.cy]) c.on("disconnected", () => void broken++);
  const sending = pairs.map(async (p) => {
    for (const [i, text] of want.entries()) {
      await p.cx.send(p.room, text);
      if (i === 15) half++;
      if (i >= 15) await eventually("the kill", () => half < 0); // the second half goes out into the disorder
    }
  });
  await eventually("all are half way", () => half === pairs.length);
  const killed = control("/kill");
  half = -1;
  await killed;
  await Promise.all(sending);
  for (const p of pairs) {
    await eventually("all have come", () => p.got.length >= want.length);
    assert.deepEqual(inOrder(p.got), want);
  }
  assert.ok(broken > 0, "nobody was on the gateway that was killed");
  await Promise.all(pairs.flatMap((p) => [p.cx.close(), p.cy.close()]));
});

// @ts-check
// Two tabs of one browser on a link that loses answers: nobody is logged out. A stolen token ends the login, still.
import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import { test } from "node:test";
import { CloseError, Parley, ServerError } from "../../client/js/index.js";
import { eventually, url, user } from "./lib.js";

/**
 * A proxy that loses every second answer to a refresh, at random: the server has done it, and the connection breaks.
 * @param {{lost: number}} count
 */
async function lossy(count) {
  const target = new URL(url);
  const proxy = http.createServer((req, res) => {
    const lose = req.url?.endsWith("/refresh") && Math.random() < 0.5;
    const out = http.request({ host: target.hostname, port: target.port, method: req.method, path: req.url, headers: req.headers }, (answer) => {
      if (lose) {
        count.lost++;
        answer.resume().once("end", () => req.socket.destroy());
        return;
      }
      res.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(res);
    });
    out.once("error", () => req.socket.destroy());
    req.pipe(out);
  });
  proxy.listen(0, "127.0.0.1");
  await once(proxy, "listening");
  const { port } = /** @type {import("node:net").AddressInfo} */ (proxy.address());
  return { base: `http://127.0.0.1:${port}`, close: () => void (proxy.close(), proxy.closeAllConnections()) };
}

test("answers to refreshes are lost a hundred times under two tabs", { timeout: 240_000 }, async (t) => {
  const lisa = await user("lisa");
  let stolen = ""; // half-way: the server remembers a hundred
  const count = { lost: 0 };
  const road = await lossy(count);
  t.after(road.close);
  // One storage, as the web client has it where there are no locks.
  /** @type {any} */
  let kept = lisa.session.tokens;
  const store = { load: () => kept, save: (/** @type {any} */ t) => void (kept = t) };
  const api = new Parley(road.base);
  const tabs = [api.session(kept, store), api.session(kept, store)];
  const open = lisa.api.session(kept).connect();
  t.after(() => open.close());
  await open.opened;
  const tab = async (/** @type {import("../../client/js/api.js").Session} */ session) => {
    while (count.lost < 100) {
      try {
        await session.refresh();
        await session.conversations({ limit: 1 });
        if (count.lost >= 50) stolen ||= session.tokens.refresh_token ?? "";
      } catch (e) {
        // An answer that is lost three times in a row is the caller's to ask for.
        assert.ok(!(e instanceof ServerError), `the server refuses: ${e}`);
      }
    }
  };
  await Promise.all(tabs.map(tab));
  assert.equal(open.connected, true, "the login's socket stays open");
  const calm = new Parley(url);
  await calm.session(kept, store).contacts();

  // Whoever took a token before comes too late.
  await eventually("the stolen token ends the login", async () => {
    const thief = calm.session({ access_token: "", refresh_token: stolen });
    return thief.refresh().then(() => false, (e) => e instanceof ServerError && e.code === "unauthenticated");
  });
  const why = await open.closed;
  assert.ok(why instanceof CloseError && why.code === 4502, String(why));
  await assert.rejects(calm.session(kept).refresh(), { code: "unauthenticated" });
});

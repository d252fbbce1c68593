// @ts-check
// The SDK against a real server: one process, killed and started again on the way.
import assert from "node:assert/strict";
import { test } from "node:test";
import { CloseError, OutcomeUnknownError, Parley, ServerError, peerOf, roomOf } from "../../client/js/index.js";
import { PASSWORD, control, eventually, inOrder, url, user } from "./lib.js";

const timeout = 120_000;

/** @param {AsyncIterable<any>} it */
async function collect(it) {
  const out = [];
  for await (const v of it) out.push(v);
  return out;
}

test("rooms", () => {
  assert.equal(roomOf("lisa", "avi"), "avi&lisa");
  assert.equal(roomOf("\u{1F600}a", "\uFF5Ea"), "\uFF5Ea&\u{1F600}a", "code points, not UTF-16 units");
  assert.equal(roomOf("ab", "a"), "a&ab");
  assert.equal(peerOf("avi&lisa", "lisa"), "avi");
});

test("two chat, with everything around it", { timeout }, async () => {
  const [lisa, avi] = [await user("lisa"), await user("avi")];
  const room = roomOf(lisa.name, avi.name);
  const l = lisa.session.connect(), a = avi.session.connect();
  const bothThere = Promise.all([l.next("caughtUp"), a.next("caughtUp")]);
  await Promise.all([l.opened, a.opened]);
  await bothThere;
  assert.ok(l.connected && l.resume);

  const got = a.next("message");
  const delivered = l.next("delivered", { test: (d) => d.room === room });
  const acc = await l.send(room, "hello <b>");
  const m = await got;
  assert.deepEqual([m.sender, m.content, m.seq, m.id, m.conversation_room], [lisa.name, "hello <b>", acc.seq, acc.id, room]);
  assert.deepEqual(await delivered, { room, username: avi.name, seq: acc.seq });

  const typed = l.next("typing");
  a.typing(room);
  assert.deepEqual(await typed, { room, username: avi.name });

  const read = l.next("read");
  a.read(room, acc.seq);
  assert.deepEqual(await read, { room, username: avi.name, seq: acc.seq });

  const contacts = await lisa.session.contacts({ prefix: avi.name });
  assert.deepEqual([contacts.contacts[0].username, contacts.contacts[0].online], [avi.name, true]);
  const { conversations } = await avi.session.conversations();
  assert.deepEqual([conversations[0].peer, conversations[0].unread, conversations[0].last_message?.content], [lisa.name, 0, "hello <b>"]);

  const gone = l.next("presence", { test: (p) => p.offline.some((o) => o.username === avi.name) });
  await a.close();
  await gone;
  assert.throws(() => a.typing(room), { name: "NotConnectedError" });
  await l.close();
});

test("history in both directions", { timeout }, async () => {
  const [lisa, avi] = [await user("lisa"), await user("avi")];
  const room = roomOf(lisa.name, avi.name);
  const l = lisa.session.connect();
  const want = Array.from({ length: 25 }, (_, i) => `message ${i}`);
  for (const text of want) await l.send(room, text);
  await eventually("history has them", async () => (await lisa.session.messages(room, { limit: 200 })).messages.length === want.length);
  const down = await collect(avi.session.history(room, { limit: 10 }));
  assert.deepEqual(down.map((m) => m.content).reverse(), want);
  const up = await collect(avi.session.history(room, { after: down[20].seq, limit: 10 }));
  assert.deepEqual(up.map((m) => m.content), want.slice(5));
  const stop = new AbortController();
  await assert.rejects(async () => {
    for await (const m of avi.session.history(room, { limit: 10, signal: stop.signal })) if (m.content === "message 20") stop.abort();
  }, { name: "AbortError" });
  await l.close();
});

test("what the server refuses (rule 12)", { timeout }, async () => {
  const lisa = await user("lisa");
  const is = (/** @type {string} */ code) => (/** @type {unknown} */ e) => e instanceof ServerError && e.code === code;
  await assert.rejects(lisa.api.register(lisa.name, PASSWORD), is("username_taken"));
  await assert.rejects(lisa.api.login(lisa.name, "not this one"), is("unauthenticated"));
  await assert.rejects(lisa.session.messages("some&body"), is("forbidden"));
  const l = lisa.session.connect();
  await assert.rejects(l.send(roomOf(lisa.name, "nobody-of-that-name"), "x"), is("unknown_user"));
  await assert.rejects(l.send("a&b", "x", { id: "not an id" }), is("invalid_argument"));
  await assert.rejects(l.send(roomOf(lisa.name, "Avi"), "x".repeat(20_000)), is("too_large"));
  const refused = l.next("refused");
  l.read("some&body", 1);
  assert.equal((await refused).error.code, "forbidden");
  await lisa.session.logout();
  const why = await l.closed;
  assert.ok(why instanceof CloseError && why.code === 4502, String(why));
  await assert.rejects(lisa.api.session({ access_token: "bad" }).connect().opened, is("unauthenticated"));
});

test("a token is renewed on the live socket, once however many ask (rules 12 and 13)", { timeout }, async () => {
  const lisa = await user("lisa");
  let trades = 0, locks = 0;
  const api = new Parley(url, {
    fetch: (input, init) => {
      if (String(input).endsWith("/refresh")) trades++;
      return fetch(input, init);
    },
  });
  /** @type {import("../../client/js/api.js").Tokens | null} */
  let kept = null;
  const store = { save: (/** @type {any} */ t) => void (kept = t), load: () => kept, lock: (/** @type {() => Promise<void>} */ f) => (locks++, f()) };
  // Its life is nearly over as far as this side knows.
  const session = api.session({ ...lisa.session.tokens, expires_in: -1 }, store);
  const old = session.tokens.refresh_token;
  await Promise.all([session.contacts(), session.conversations(), session.token()]);
  assert.deepEqual([trades, locks], [1, 1]);
  assert.notEqual(session.tokens.refresh_token, old);
  const l = session.connect();
  await l.opened;
  const second = session.tokens.refresh_token;
  await session.refresh();
  assert.notEqual(session.tokens.refresh_token, second);
  // Had the server not taken the new token, it would have said so before it answers this.
  l.on("refused", ({ error }) => assert.fail(error));
  await l.send(roomOf(lisa.name, "Avi"), "still here");
  // Another tab has renewed: its tokens are taken from the store.
  const twin = api.session({ ...lisa.session.tokens, expires_in: -1 }, store);
  assert.equal(await twin.token(), session.tokens.access_token);
  assert.equal(trades, 2);
  await l.close();
});

test("the server is killed while messages are sent: each arrives once and in order (rules 7, 8 and 14)", { timeout }, async () => {
  const [lisa, avi] = [await user("lisa"), await user("avi")];
  const room = roomOf(lisa.name, avi.name);
  const fast = { minBackoff: 50, maxBackoff: 500 };
  const l = lisa.session.connect(fast), a = avi.session.connect(fast);
  /** @type {import("../../client/js/api.js").Message[]} */
  const got = [];
  a.on("message", (m) => void got.push(m));
  await Promise.all([l.next("caughtUp"), a.next("caughtUp")]);
  const want = Array.from({ length: 60 }, (_, i) => `m${i}`);
  const broke = l.next("disconnected");
  const sending = (async () => {
    for (const text of want) await l.send(room, text);
  })();
  await eventually("some have come", () => got.length >= 10);
  await control("/kill");
  await broke;
  // Without a connection, a send that is given up has no known outcome only if it went out.
  await assert.rejects(l.send(room, "never sent", { signal: AbortSignal.timeout(50) }), { name: "TimeoutError" });
  await control("/start");
  await sending;
  await eventually("all have come", () => got.length >= want.length);
  assert.deepEqual(inOrder(got), want);
  await a.close();
  // Somebody who was away gets what was missed from where it stopped.
  const resume = a.resume;
  await l.send(room, "while away");
  const b = avi.session.connect({ resume });
  /** @type {string[]} */
  const later = [];
  b.on("message", (m) => void later.push(m.content));
  await eventually("what was missed comes", () => later.includes("while away"));
  await Promise.all([b.close(), l.close()]);
});

test("an outcome that is not known is said", { timeout }, async () => {
  const lisa = await user("lisa");
  const l = lisa.session.connect();
  await l.opened;
  const stop = new AbortController();
  const sent = l.send(roomOf(lisa.name, "Avi"), "x", { id: "unknown-1", signal: stop.signal });
  queueMicrotask(() => stop.abort());
  await assert.rejects(sent, (e) => e instanceof OutcomeUnknownError && e.id === "unknown-1");
  const acc = await l.send(roomOf(lisa.name, "Avi"), "x", { id: "unknown-1", retry: true });
  assert.ok(acc.seq > 0);
  await l.close();
});

test("somebody is erased: their messages have no text any more, and keep their places", { timeout }, async () => {
  const [lisa, avi] = [await user("lisa"), await user("avi")];
  const room = roomOf(lisa.name, avi.name);
  const l = lisa.session.connect(), a = avi.session.connect();
  await Promise.all([l.next("caughtUp"), a.next("caughtUp")]);
  await l.send(room, "secret one");
  await a.send(room, "mine");
  await l.send(room, "secret two");
  await a.close();
  await l.send(room, "while Avi was away");
  const ended = l.closed;
  await control("/erase/" + lisa.name);
  assert.ok(/** @type {any} */ (await ended).code >= 4500, "her own connection ends for good");
  const b = avi.session.connect({ resume: a.resume });
  /** @type {string[]} */
  const got = [];
  b.on("message", (m) => void (m.sender === lisa.name && got.push(m.content)));
  await b.next("caughtUp");
  assert.ok(got.every((text) => text === ""), `what was missed has no text either: ${got}`);
  const all = await collect(avi.session.history(room, { after: 0 }));
  assert.deepEqual(all.map((m) => [m.sender, m.content]), [[lisa.name, ""], [avi.name, "mine"], [lisa.name, ""], [lisa.name, ""]]);
  assert.equal(new Set(all.map((m) => m.id)).size, 4);
  assert.equal((await avi.session.conversations()).conversations[0].last_message?.content, "");
  await assert.rejects(b.send(room, "are you there?"), { name: "ServerError" });
  await b.close();
});

// @ts-check
// What a client asks for when its socket ends at a bad moment: nothing may be passed over, nothing may come twice.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Fake } from "./fake.js";
import { eventually } from "./wait.js";

const ROOM = "Avi&Lisa";
const timeout = 20_000;

/**
 * The nth message of the room; seqs are not dense.
 * @param {number} n
 * @param {any} [more]
 * @returns {import("../../client/js/api.js").Message}
 */
const msg = (n, more) => ({ sender: "Avi", content: `m${n}`, conversation_room: ROOM, id: `id${n}`, seq: n * 10, prev: (n - 1) * 10, sent_at: "2026-03-01T09:30:00.000Z", ...more });
const late = { late: true };

/** A connection of Lisa's to a server of the test, and what it has got. @param {import("../../client/js/connection.js").ConnectOptions} [options] */
async function lisa(options) {
  const server = new Fake("Lisa");
  const conn = server.connect(options);
  /** @type {string[]} */
  const got = [];
  conn.on("message", (m) => void got.push(m.content + (m.late ? " late" : "")));
  return { server, conn, got, first: await server.socket() };
}

test("a live message overtakes missed ones and the gateway dies: the next join asks for all that is not confirmed", { timeout }, async () => {
  const { server, conn, got, first } = await lisa();
  assert.deepEqual(await first.joined(), { rooms: "*" });
  first.say("received_message", msg(5));
  assert.deepEqual(got, ["m5"]);
  first.cut(); // before m3 and m4, which nobody has confirmed
  const second = await server.socket();
  assert.deepEqual(await second.joined(), { rooms: "*" }, "neither since nor resume");
  for (const n of [3, 4, 5]) second.say("received_message", msg(n));
  second.say("caught_up", { resume: "r1" });
  assert.deepEqual(got, ["m5", "m3 late", "m4 late"]);
  second.cut();
  assert.deepEqual(await (await server.socket()).joined(), { rooms: "*", resume: "r1" });
  assert.deepEqual(server.asked, []);
  await conn.close();
});

test("so does one's own message that is accepted before the end of the catch-up", { timeout }, async () => {
  const { server, conn, got, first } = await lisa();
  await first.joined();
  const sent = conn.send(ROOM, "mine");
  const { id } = await first.heard("client_sends_message");
  first.say("message_accepted", { conversation_room: ROOM, id, seq: 50, prev: 40, sent_at: "2026-03-01T09:30:00.000Z" }, id);
  assert.equal((await sent).seq, 50);
  first.cut();
  const second = await server.socket();
  assert.deepEqual(await second.joined(), { rooms: "*" });
  for (const n of [3, 4]) second.say("received_message", msg(n));
  second.say("received_message", { ...msg(5), sender: "Lisa", content: "mine", id });
  assert.deepEqual(got, ["m3 late", "m4 late"]);
  await conn.close();
});

test("a resume token that is not taken any more: the next join is without one, and drops what comes again", { timeout }, async () => {
  const { server, conn, got, first } = await lisa();
  await first.joined();
  first.say("received_message", msg(1));
  first.say("caught_up", { resume: "r1" });
  first.cut();
  const second = await server.socket();
  const join = await second.heard("join");
  assert.deepEqual(join.data, { rooms: "*", resume: "r1" });
  second.say("error", { code: "invalid_argument", message: "resume is not a token of this server" }, join.id);
  const third = await server.socket();
  assert.deepEqual(await third.joined(), { rooms: "*" });
  for (const n of [1, 2]) third.say("received_message", msg(n));
  assert.deepEqual(got, ["m1", "m2"]);
  await conn.close();
});

test("a token that came with connection_alive counts; an empty one, before the catch-up has ended, does not", { timeout }, async () => {
  const { server, conn, first } = await lisa();
  await first.joined();
  first.say("received_message", msg(5));
  conn.hurry();
  first.say("ack", {}, (await first.heard("connection_alive")).id);
  first.cut();
  const second = await server.socket();
  assert.deepEqual(await second.joined(), { rooms: "*" });
  second.say("caught_up", { resume: "r1" });
  conn.hurry();
  second.say("ack", { resume: "r2" }, (await second.heard("connection_alive")).id);
  assert.equal(conn.resume, "r2");
  second.cut();
  assert.deepEqual(await (await server.socket()).joined(), { rooms: "*", resume: "r2" });
  await conn.close();
});

test("many live messages overtake missed ones, which come all the same", { timeout }, async () => {
  const { server, conn, got, first } = await lisa();
  await first.joined();
  for (let n = 100; n < 700; n++) first.say("received_message", msg(n));
  assert.equal(got.length, 600);
  first.cut();
  const second = await server.socket();
  assert.deepEqual(await second.joined(), { rooms: "*" });
  for (let n = 98; n < 700; n++) second.say("received_message", msg(n));
  assert.deepEqual(got.slice(600), ["m98 late", "m99 late"]);
  assert.equal(new Set(got).size, got.length);
  await conn.close();
});

test("a message that its sender gave up is stored all the same: it comes as a message", { timeout }, async () => {
  const { server, conn, got, first } = await lisa();
  await first.joined();
  const giveUp = new AbortController();
  const sent = conn.send(ROOM, "mine", { signal: giveUp.signal });
  const { id } = await first.heard("client_sends_message");
  giveUp.abort();
  await assert.rejects(sent, { name: "OutcomeUnknownError" });
  first.say("message_accepted", { conversation_room: ROOM, id, seq: 50, prev: 40, sent_at: "2026-03-01T09:30:00.000Z" }, id);
  assert.deepEqual(got, ["mine"]);
  assert.deepEqual(server.asked, []);
  await conn.close();
});

test("an id that was used before, for another text, is no answer", { timeout }, async () => {
  const { conn, got, first } = await lisa();
  await first.joined();
  const sent = conn.send(ROOM, "second", { id: "twice" });
  await first.heard("client_sends_message");
  first.say("received_message", { ...msg(5), sender: "Lisa", content: "first", id: "twice" });
  assert.deepEqual(got, ["first"]);
  first.say("error", { code: "id_conflict", message: "another message" }, "twice");
  await assert.rejects(sent, { code: "id_conflict" });
  await conn.close();
});

test("a read marker is said again until the server has it", { timeout }, async () => {
  const { server, conn, first } = await lisa();
  await first.joined();
  conn.read(ROOM, 50);
  const one = await first.heard("message_read");
  first.say("error", { code: "unavailable", message: "later" }, one.id);
  assert.deepEqual((await first.heard("message_read")).data, { conversation_room: ROOM, seq: 50 });
  first.cut(); // before the answer
  const second = await server.socket();
  await second.joined();
  const two = await second.heard("message_read");
  assert.equal(two.data.seq, 50);
  second.say("ack", {}, two.id);
  second.cut();
  const third = await server.socket();
  await third.joined();
  conn.read(ROOM, 60);
  assert.equal((await third.heard("message_read")).data.seq, 60, "the one that was answered is not said again");
  await conn.close();
});

test("a catch-up says where it begins, and the gateway dies: the next join goes on from there", { timeout }, async () => {
  const { server, conn, got, first } = await lisa();
  await first.joined();
  first.say("catching_up", { resume: "r0" });
  first.say("received_message", msg(5)); // overtakes m3 and m4
  first.cut();
  const second = await server.socket();
  assert.deepEqual(await second.joined(), { rooms: "*", resume: "r0" });
  for (const n of [3, 4, 5]) second.say("received_message", msg(n));
  second.say("caught_up", { resume: "r1" });
  assert.deepEqual(got, ["m5", "m3 late", "m4 late"]);
  assert.deepEqual(server.asked, []);
  await conn.close();
});

test("a room that cannot be joined is told, and the others go on; a list longer than a frame goes in several", { timeout }, async () => {
  const long = Array.from({ length: 2000 }, (_, i) => `Lisa&${"ü".repeat(20)}${i}`);
  const rooms = [...long, ROOM];
  const { server, conn, got, first } = await lisa({ rooms });
  /** @type {string[]} */
  const told = [];
  conn.on("notJoined", ({ room, code }) => void told.push(room + " " + code));
  const parts = [await first.heard("join"), await first.heard("join")];
  assert.deepEqual(parts.flatMap((p) => p.data.rooms), rooms);
  for (const p of parts) assert.ok(Buffer.byteLength(JSON.stringify(p)) <= 64 << 10);
  first.say("error", { code: "forbidden", message: "no" }, parts[0].id); // nothing of the first part
  first.say("caught_up", { resume: "too early" });
  first.say("ack", { joined: [ROOM], refused: [{ room: rooms[1999], code: "unknown_user" }] }, parts[1].id);
  await eventually("all are told", () => told.length === parts[0].data.rooms.length + 1);
  assert.equal(told.at(-1), rooms[1999] + " unknown_user");
  assert.equal(conn.resume, "");
  first.say("received_message", msg(1));
  assert.deepEqual(got, ["m1"]);
  assert.throws(() => conn.watch(["x".repeat(70_000)]), { code: "too_large" });
  assert.ok(server);
  await conn.close();
});

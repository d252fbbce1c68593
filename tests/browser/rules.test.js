// @ts-check
// What of docs/sdk.md cannot be seen from outside of the SDK. tests/sdk has the rest.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Parley } from "../../client/js/index.js";
import { MAX_SEEN, Seen } from "../../client/js/seen.js";

test("rules 7 and 8: each message passes once while it is among the newest, what is below a younger one is late, and memory has its bound", () => {
  const seen = new Seen(), rooms = ["a&b", "a&c", "a&d"];
  /** @type {Map<string, {had: Set<number>, top: number}>} */
  const truth = new Map(rooms.map((r) => [r, { had: new Set(), top: 0 }]));
  let added = 0;
  for (let i = 0; added < 3 * MAX_SEEN; i++) {
    const room = rooms[i % 3], r = /** @type {{had: Set<number>, top: number}} */ (truth.get(room));
    const seq = Math.max(1, i - ((i * 7919) % (MAX_SEEN / 4))); // out of order, and some twice
    assert.deepEqual(seen.look(room, seq), { twin: r.had.has(seq), late: seq < r.top }, `${room} ${seq}, of ${added}`);
    if (r.had.has(seq)) continue;
    seen.add(room, seq);
    r.had.add(seq);
    r.top = Math.max(r.top, seq);
    added++;
  }
  for (const room of rooms) assert.equal(seen.look(room, 1).twin, false, "the oldest are forgotten");
});

test("rule 20: an event is handed over while its frame is read", async () => {
  /** @type {any} */
  let socket;
  class Socket {
    readyState = 1;
    onmessage = /** @type {any} */ (null);
    onclose = /** @type {any} */ (null);
    /** @type {any[]} */
    sent = [];
    constructor() {
      socket = this;
    }
    /** @param {string} text */
    send(text) {
      const f = JSON.parse(text);
      if (f.event === "join") queueMicrotask(() => this.say("ack", { joined: ["*"] }, f.id));
      if (f.event === "client_disconnection") queueMicrotask(() => this.onclose({ code: 1000, reason: "" }));
    }
    close() {}
    /** @param {string} event @param {unknown} data @param {string} [re] */
    say(event, data, re) {
      this.onmessage({ data: JSON.stringify({ event, data, re }) });
    }
  }
  const conn = new Parley("http://fake.invalid").session({ access_token: "t" }).connect({ WebSocket: /** @type {any} */ (Socket) });
  await new Promise((r) => setImmediate(r)); // the socket is made
  socket.say("welcome", { username: "Lisa", heartbeat_s: 25, limits: {} });
  await conn.opened;
  /** @type {number[]} */
  const got = [];
  conn.on("message", (m) => void got.push(m.seq));
  for (let seq = 1; seq <= 3; seq++) {
    socket.say("received_message", { conversation_room: "Avi&Lisa", sender: "Avi", content: "x", id: "i" + seq, seq, sent_at: "2026-03-01T09:30:00.000Z" });
    assert.equal(got.at(-1), seq);
  }
  await conn.close();
});

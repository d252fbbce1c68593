// @ts-check
// A server in this process that does what a test tells it: sockets and HTTP without a network. For what a real one does only when it
// dies at the right moment.
import { Parley } from "../../client/js/index.js";
import { Deferred } from "../../client/js/util.js";

/** @typedef {import("../../client/js/api.js").Message} Message */

/** The server's end of one socket. */
class Socket {
  readyState = 0;
  /** @type {((e: {data: string}) => void) | null} */
  onmessage = null;
  /** @type {((e: {code: number, reason: string}) => void) | null} */
  onclose = null;
  /** @type {any[]} frames of the client that no test has asked for yet */
  #sent = [];
  /** @type {{event: string, found: Deferred<any>}[]} */
  #wanted = [];

  /** @param {string} text */
  send(text) {
    const f = JSON.parse(text);
    if (f.event === "client_disconnection") return void queueMicrotask(() => this.onclose?.({ code: 1000, reason: "" }));
    this.#sent.push(f);
    this.#match();
  }

  close() {
    this.readyState = 3;
  }

  /** The next frame of a kind that the client sends, or has sent. @param {string} event @returns {Promise<any>} */
  heard(event) {
    const w = { event, found: new Deferred() };
    this.#wanted.push(w);
    this.#match();
    return w.found.promise;
  }

  #match() {
    this.#wanted = this.#wanted.filter((w) => {
      const at = this.#sent.findIndex((f) => f.event === w.event);
      if (at < 0) return true;
      w.found.resolve(this.#sent.splice(at, 1)[0]);
      return false;
    });
  }

  /** @param {string} event @param {unknown} data @param {string} [re] */
  say(event, data, re) {
    this.onmessage?.({ data: JSON.stringify({ event, data, re }) });
  }

  /** Answers a join, and gives back what it asked for. */
  async joined() {
    const f = await this.heard("join");
    this.say("ack", { joined: ["*"] }, f.id);
    return f.data;
  }

  /** The gateway dies. */
  cut() {
    this.readyState = 3;
    this.onclose?.({ code: 1006, reason: "" });
  }
}

/** One user's view of a deployment. Its history is `stored`. */
export class Fake {
  /** @type {Message[]} */
  stored = [];
  /** @type {string[]} paths that were asked for */
  asked = [];
  away = false; // history answers 503
  #opened = /** @type {Socket[]} */ ([]);
  /** @type {Deferred<Socket> | null} */
  #waiting = null;

  /** @param {string} me */
  constructor(me) {
    const server = this;
    this.me = me;
    this.WebSocket = /** @type {any} */ (class extends Socket {
      constructor() {
        super();
        queueMicrotask(() => {
          this.readyState = 1;
          this.say("welcome", { username: me, session: "s", heartbeat_s: 25, limits: {} });
          server.#opened.push(this);
          server.#waiting?.resolve(/** @type {Socket} */ (server.#opened.shift()));
          server.#waiting = null;
        });
      }
    });
    this.api = new Parley("http://fake.invalid", { fetch: async (input) => this.#answer(new URL(String(input))) });
  }

  /** @param {URL} u */
  #answer(u) {
    this.asked.push(u.pathname + u.search);
    if (this.away) return Response.json({ code: "unavailable" }, { status: 503 });
    const room = decodeURIComponent(u.pathname.split("/")[3]), after = Number(u.searchParams.get("after") ?? 0);
    return Response.json({ messages: this.stored.filter((m) => m.conversation_room === room && m.seq > after), more: false });
  }

  /** @param {import("../../client/js/connection.js").ConnectOptions} [options] */
  connect(options) {
    return this.api.session({ access_token: "t", username: this.me }).connect({ WebSocket: this.WebSocket, minBackoff: 1, maxBackoff: 5, ...options });
  }

  /** The next socket that the client opens. @returns {Promise<Socket>} */
  async socket() {
    return this.#opened.shift() ?? (this.#waiting = new Deferred()).promise;
  }
}

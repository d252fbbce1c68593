// @ts-check
import { FRAME_BYTES, frameBytes, splitJoin } from "./join.js";
import { CloseError, NotConnectedError, OutcomeUnknownError, ServerError, isRefusedToken, shouldReconnect } from "./errors.js";
import { Seen } from "./seen.js";
import { Deferred, newId, orAbort, sleep, within } from "./util.js";

/**
 * @typedef {import("./api.js").Message} Message
 * @typedef {import("./api.js").Session} Session
 * @typedef {{id: string, room: string, seq: number, sentAt: string}} Accepted
 *
 * @typedef {object} ConnectOptions
 * @property {string[]} [rooms] all of the user's when absent, also those that come to be later
 * @property {string} [device] a name that lets the server remember what this device has; at most 64 characters
 * @property {string} [resume] where an earlier process stopped
 * @property {number} [minBackoff] ms, default 500
 * @property {number} [maxBackoff] ms, default 15,000: the wait before a reconnect is random between 0 and a limit that doubles from the one to the other
 * @property {number} [answerTimeout] ms, default 15,000: how long a message waits on a connection that says nothing at all, before another one is made
 * @property {AbortSignal} [signal] closes the connection
 * @property {typeof globalThis.WebSocket} [WebSocket] default: the platform's, or a small one of this package where there is none (Node 20)
 *
 * The events of a connection.
 * @typedef {object} Events
 * @property {Message} message sent by the other user of its room, or by another session of one's own; each comes once. `late`: younger ones came before it
 * @property {Accepted} accepted a message of this connection was stored; also the answer of `send`
 * @property {{online: string[], offline: {username: string, last_seen?: string}[], snapshot?: boolean, partial?: boolean, unknown?: boolean}} presence after a snapshot everybody that it does not name is offline or, when it is partial, not known; while it is unknown the server cannot tell, and a snapshot follows
 * @property {{room: string, username: string}} typing holds for 5 s
 * @property {{room: string, username: string, seq: number}} read it may be oneself on another device
 * @property {{room: string, username: string, seq: number}} delivered
 * @property {{room: string, username: string, removed: boolean}} contact somebody became a contact, or is none any more
 * @property {{resume: string}} caughtUp everything missed has come
 * @property {{again: boolean}} connected joined; what was missed comes next
 * @property {{error: unknown, wait: number}} disconnected a new connection is tried after `wait` ms
 * @property {{room: string, code: string}} notJoined a room of `rooms` that could not be joined, and why; the others were
 * @property {{error: ServerError}} refused an error about something that has no other answer
 * @property {{error: unknown}} closed for good
 */

// Limits, and what happens at each.
const MAX_PENDING = 1024; // sends without an outcome: an error
const MAX_EARLY = 256; // frames before the answer to join: the connection is made anew

const OPEN_TIMEOUT = 3_000; // of a first try; twice as long after one that took longer, up to WELCOME_TIMEOUT
const WELCOME_TIMEOUT = 10_000;
const ANSWER_TIMEOUT = 15_000; // of a message, on a connection that says nothing at all
const BYE_TIMEOUT = 2_000;

// Ids of frames that are not messages; "#" is in no message id.
const ID_JOIN = "#join";
const ID_ALIVE = "#alive";
const ID_READ = "#read "; // and the marker's number
const ID_REFRESH = "#refresh";

/** One socket, from its opening to its end. */
class Link {
  heard = Date.now();
  asked = 0; // when the server was asked last whether it is there
  planned = false; // closed by this side, to connect anew at once
  joined = false;
  /** @type {any[]} frames that came before the answer to join */
  early = [];
  /** @type {any[]} joins that have no answer yet */
  joins = [];
  anyJoined = false;
  /** @type {{room: string, code: string}[]} */
  refused = [];
  token = "";
  /** @type {Deferred<unknown>} resolves with why the socket ended */
  down = new Deferred();
  ended = new AbortController(); // stops the timers of this socket

  /** @param {WebSocket} ws */
  constructor(ws) {
    this.ws = ws;
    ws.onclose = (e) => this.fail(new CloseError(e.code, e.reason));
  }

  /**
   * Ends it, without a good-bye: the user stays online for a moment.
   * @param {unknown} error
   */
  fail(error) {
    this.ws.onclose = this.ws.onmessage = this.ws.onopen = null;
    this.ws.onerror = () => {}; // late news of a socket that is done
    this.ws.close();
    this.ended.abort();
    this.down.resolve(error);
  }

  /**
   * @param {string} event
   * @param {unknown} [data]
   * @param {string} [id]
   */
  write(event, data, id) {
    if (this.ws.readyState === 1) this.ws.send(JSON.stringify({ event, data, id }));
  }
}

/** A connection that stays up until `close`, or until the server says something that waiting cannot mend. */
export class Connection {
  /** @type {Map<string, Set<(data: any) => void>>} */
  #handlers = new Map();
  #seen = new Seen();
  /** @type {Map<string, Deferred<Accepted | ServerError | null>>} null: the socket is gone */
  #pending = new Map();
  /** @type {Map<string, string>} the texts of the pending ones, and of those that were given up without an outcome, oldest first */
  #texts = new Map();
  /** @type {Map<string, {seq: number, id: string}>} per room up to where it was read, while the server has not said that it knows */
  #reads = new Map();
  /** @type {Link | null} the one that has joined */
  #link = null;
  /** @type {Deferred<Link>} */
  #up = new Deferred();
  /** @type {string[] | null} */
  #watch = null;
  #stop = new AbortController();
  #wake = new AbortController(); // ends the wait before the next try
  #patience = OPEN_TIMEOUT; // with the next socket
  #asked = 0;
  #again = false;
  #closing = false;
  #opened = /** @type {Deferred<void>} */ (new Deferred());
  #done = /** @type {Deferred<unknown>} */ (new Deferred());

  /**
   * @param {Session} session
   * @param {ConnectOptions} [options]
   */
  constructor(session, options = {}) {
    this.session = session;
    this.options = options;
    this.minBackoff = options.minBackoff ?? 500;
    this.maxBackoff = Math.max(options.maxBackoff ?? 15_000, this.minBackoff);
    this.answerTimeout = options.answerTimeout ?? ANSWER_TIMEOUT;
    /** The newest resume token, "" before the first one: of the place where a catch-up began or up to which everything came. */
    this.resume = options.resume ?? "";
    /** @type {import("./api.js").Tokens & object | null} what the server allows: limits of the last welcome */
    this.welcome = null;
    /** Resolves when joined for the first time, rejects when the connection ends before. */
    this.opened = this.#opened.promise;
    /** Resolves with the reason when the connection has ended for good. */
    this.closed = this.#done.promise;
    options.signal?.addEventListener("abort", () => void this.close(), { once: true });
    const forget = session.onRenewed((t) => {
      const l = this.#link;
      if (l && l.token !== t.access_token) l.write("refresh_token", { token: (l.token = t.access_token) }, ID_REFRESH);
    });
    void this.#run().catch((e) => e).then((error) => {
      forget();
      this.#stop.abort(error);
      this.#link?.fail(error);
      this.#up.reject(error);
      this.#opened.reject(error);
      this.#done.resolve(error);
      this.#emit("closed", { error });
    });
  }

  /** Whether it is joined at the moment. */
  get connected() {
    return this.#link !== null;
  }

  /**
   * Calls f for every event of a type, until the result is called or signal aborts.
   * @template {keyof Events} K
   * @param {K} type
   * @param {(data: Events[K]) => void} f
   * @param {{signal?: AbortSignal}} [o]
   */
  on(type, f, o) {
    const set = this.#handlers.get(type) ?? new Set();
    this.#handlers.set(type, set.add(f));
    const off = () => void set.delete(f);
    o?.signal?.addEventListener("abort", off, { once: true });
    return off;
  }

  /**
   * The next event of a type for which `test` holds.
   * @template {keyof Events} K
   * @param {K} type
   * @param {{signal?: AbortSignal, test?: (data: Events[K]) => boolean}} [o]
   * @returns {Promise<Events[K]>}
   */
  next(type, o = {}) {
    /** @type {Deferred<Events[K]>} */
    const d = new Deferred();
    const off = this.on(type, (data) => {
      if (!o.test || o.test(data)) d.resolve(data);
    });
    const ended = type === "closed" ? d.promise : Promise.race([d.promise, this.closed.then((e) => Promise.reject(e))]);
    return orAbort(ended, o.signal).finally(off);
  }

  /**
   * @template {keyof Events} K
   * @param {K} type
   * @param {Events[K]} data
   */
  #emit(type, data) {
    for (const f of [...(this.#handlers.get(type) ?? [])]) {
      try {
        f(data);
      } catch (e) {
        queueMicrotask(() => { throw e; }); // the caller's mistake is the caller's; the connection goes on
      }
    }
  }

  /**
   * Stores a text in a room and resolves when that is done. It goes on through broken connections and outages until signal aborts;
   * then it rejects with OutcomeUnknownError if the message had gone out. Calls that wait for each other keep their order.
   * `retry`: this id was sent before, perhaps by another process, and its outcome is not known.
   * @param {string} room
   * @param {string} content
   * @param {{id?: string, retry?: boolean, signal?: AbortSignal}} [o]
   * @returns {Promise<Accepted>}
   */
  async send(room, content, { id = newId(), retry = false, signal } = {}) {
    if (!/^[A-Za-z0-9_.:-]{1,64}$/.test(id)) throw new ServerError("invalid_argument", "a message id is 1 to 64 of A-Z a-z 0-9 _ . : -");
    if (!room || !content) throw new ServerError("invalid_argument", "a message has a room and text");
    if (this.#pending.has(id)) throw new ServerError("invalid_argument", "a message with this id is being sent already");
    if (this.#pending.size >= MAX_PENDING) throw new ServerError("rate_limited", "too many messages wait for an outcome");
    this.#pending.set(id, new Deferred()); // the id is taken, also while there is no connection
    this.#texts.delete(id);
    this.#texts.set(id, content);
    let unknown = false;
    try {
      for (let wait = 100; ; ) {
        const link = this.#link ?? (await orAbort(this.#up.promise, signal));
        link.write("client_sends_message", { conversation_room: room, content, id, retry: retry || undefined }, id);
        const again = retry;
        retry = true; // from here on it may have reached the server
        // The network may be gone without a good-bye; that the caller has lost patience does not make it a good one.
        const probe = setInterval(() => this.#ask(link), this.answerTimeout / 3);
        const got = await orAbort(/** @type {Deferred<Accepted | ServerError | null>} */ (this.#pending.get(id)).promise, signal).catch((e) => {
          this.#ask(link);
          throw e;
        }).finally(() => clearInterval(probe));
        if (got === null) continue;
        if (!(got instanceof ServerError)) return got;
        // A refusal by rate says nothing about an earlier attempt.
        if (got.code !== "unavailable" && !(got.code === "rate_limited" && again)) {
          retry = false;
          throw got;
        }
        this.#pending.set(id, new Deferred());
        await sleep(Math.max(Math.random() * wait, got.retryAfter), signal);
        wait = Math.min(2 * wait, 5000);
      }
    } catch (e) {
      unknown = retry;
      throw retry ? new OutcomeUnknownError(id, e) : e;
    } finally {
      this.#pending.delete(id);
      if (!unknown) this.#texts.delete(id);
      else for (const old of this.#texts.keys()) if (this.#texts.size > 2 * MAX_PENDING && !this.#pending.has(old)) this.#texts.delete(old);
    }
  }

  /**
   * Tells the other user of a room that one types. Raises NotConnectedError, as read and watch do.
   * @param {string} room
   */
  typing(room) {
    this.#say("typing", { conversation_room: room });
  }

  /**
   * Marks a room as read up to seq, on all devices. It is sent again until the server has it.
   * @param {string} room
   * @param {number} seq
   */
  read(room, seq) {
    if (!this.#link) throw new NotConnectedError();
    const was = this.#reads.get(room);
    this.#reads.set(room, { seq: Math.max(seq, was?.seq ?? 0), id: ID_READ + ++this.#asked });
    this.#sayRead(room);
  }

  /** @param {string} room */
  #sayRead(room) {
    const r = this.#reads.get(room);
    if (r) this.#link?.write("message_read", { conversation_room: room, seq: r.seq }, r.id);
  }

  /**
   * The answer to a marker: null, or why not. What may pass is tried again.
   * @param {string} id
   * @param {ServerError | null} e
   */
  async #readAnswered(id, e) {
    for (const [room, r] of this.#reads) {
      if (r.id !== id) continue;
      if (!e?.temporary) {
        this.#reads.delete(room);
        if (e) this.#emit("refused", { error: e });
        return;
      }
      await sleep(Math.max(1000 + Math.random() * 2000, e.retryAfter), this.#stop.signal).catch(() => {});
      if (this.#reads.get(room) === r && !this.#stop.signal.aborted) this.#sayRead(room);
      return;
    }
  }

  /**
   * Narrows presence to these users, also after a reconnect. A list that does not fit into one frame is refused, and the earlier one stays.
   * @param {string[]} usernames
   */
  watch(usernames) {
    if (frameBytes({ event: "watch_presence", data: { usernames } }) > this.#frameBytes) {
      throw new ServerError("too_large", "the list of names does not fit into one frame", 0);
    }
    this.#watch = [...usernames];
    this.#say("watch_presence", { usernames });
  }

  /**
   * @param {string} event
   * @param {unknown} data
   */
  #say(event, data) {
    if (!this.#link) throw new NotConnectedError();
    this.#link.write(event, data);
  }

  /** Tries again now instead of after the backoff, and looks whether a connection that seems to be up is. For when the network came back. */
  hurry() {
    this.#wake.abort();
    if (this.#link) this.#ask(this.#link);
  }

  /** Leaves: the user is offline at once if this was the last session. */
  async close() {
    const l = this.#link;
    if (!this.#closing && l) {
      this.#closing = true;
      l.write("client_disconnection");
      await orAbort(l.down.promise, AbortSignal.timeout(BYE_TIMEOUT)).catch(() => {});
    }
    this.#closing = true;
    this.#stop.abort(new NotConnectedError("the connection was closed by this side"));
    await this.closed;
  }

  /** Makes one socket after the other; returns or throws why there are no more. */
  async #run() {
    for (let attempt = 0; ; attempt++) {
      /** @type {unknown} */
      let error;
      /** @type {Link | null} */
      let link = null;
      const began = Date.now();
      try {
        link = await this.#connect();
        error = await orAbort(link.down.promise, this.#stop.signal);
      } catch (e) {
        error = e;
      } finally {
        if (link) this.#detach(link, error);
      }
      if (this.#closing || this.#stop.signal.aborted) return this.#stop.signal.reason ?? error;
      if (link && Date.now() - began > this.maxBackoff) attempt = 0; // it was a good one
      const wait = this.#plan(error, attempt, link);
      if (wait === null) return error;
      this.#wake = new AbortController();
      if (link) this.#emit("disconnected", { error, wait });
      await sleep(wait, AbortSignal.any([this.#wake.signal, this.#stop.signal])).catch(() => {});
      if (this.#stop.signal.aborted) return this.#stop.signal.reason;
    }
  }

  /**
   * How long to wait after error; null: do not come back. link broke, null after a try that failed.
   * @param {unknown} error
   * @param {number} attempt
   * @param {Link | null} link
   */
  #plan(error, attempt, link) {
    if (link?.planned) return 0;
    const ceiling = Math.min(this.maxBackoff, this.minBackoff * 2 ** Math.min(attempt, 16));
    if (isRefusedToken(error)) return link && this.session.tokens.refresh_token ? Math.random() * ceiling : null; // connect renews it
    if (error instanceof CloseError) {
      if (!shouldReconnect(error.code)) return null;
      // After too many frames or connections, coming back soon would end the same way.
      return Math.random() * (error.code === 4003 || error.code === 4004 ? this.maxBackoff : ceiling);
    }
    if (error instanceof ServerError) {
      if (!error.temporary) return null;
      return Math.max(Math.random() * ceiling, error.retryAfter);
    }
    return Math.random() * ceiling;
  }

  /** A socket that has joined. A refused token is renewed once. */
  async #connect() {
    const used = this.session.tokens;
    try {
      return await this.#connectOnce();
    } catch (e) {
      if (!isRefusedToken(e) || !this.session.tokens.refresh_token) throw e;
    }
    await this.session._renew(used, { signal: this.#stop.signal });
    return this.#connectOnce();
  }

  async #connectOnce() {
    const signal = this.#stop.signal;
    const token = await this.session.token({ signal });
    const WS = this.options.WebSocket ?? globalThis.WebSocket ?? (await import("./node-websocket.js")).default;
    signal.throwIfAborted();
    const ws = new WS(this.session.api.base.replace(/^http/, "ws") + "/v1/ws", ["parley.v1", "bearer." + token]);
    const link = new Link(ws);
    link.token = token;
    // A load balancer takes connections for a server that has just gone, and nobody answers.
    const slow = setTimeout(() => {
      this.#patience = Math.min(this.#patience * 2, WELCOME_TIMEOUT);
      link.fail(new Error("the server does not answer"));
    }, this.#patience);
    ws.onopen = () => clearTimeout(slow);
    /** @type {Deferred<void>} */
    const joined = new Deferred();
    ws.onmessage = (e) => {
      link.heard = Date.now();
      /** @type {any} */
      let f = null;
      try {
        f = JSON.parse(e.data);
      } catch {
        // of a younger server, or broken: ignored like an event that this page does not know
      }
      if (f && typeof f === "object") link.joined ? this.#frame(link, f) : this.#opening(link, f, joined);
    };
    try {
      await orAbort(Promise.race([joined.promise, link.down.promise.then((e) => Promise.reject(e))]), within(WELCOME_TIMEOUT, signal));
    } catch (e) {
      link.fail(e);
      throw e;
    } finally {
      clearTimeout(slow);
    }
    this.#patience = OPEN_TIMEOUT;
    return link;
  }

  /**
   * Frames before the answer to join: those of others wait for it.
   * @param {Link} link
   * @param {any} f
   * @param {Deferred<void>} joined
   */
  #opening(link, f, joined) {
    if (f.event === "error") {
      const e = serverError(f);
      if (f.re === ID_JOIN && e.code === "invalid_argument" && this.resume && this.#again) {
        this.resume = ""; // of another installation
        joined.reject(new Error("the resume token is not taken any more: " + e.message));
      } else if (f.re === ID_JOIN && (e.code === "forbidden" || e.code === "unknown_user") && (link.joins.length > 1 || link.anyJoined)) {
        this.#partJoined(link, link.joins[0].rooms.map((/** @type {string} */ room) => ({ room, code: e.code })), joined); // nothing of this part can be joined
      } else joined.reject(e);
    } else if (f.event === "welcome") {
      this.welcome = f.data;
      this.session.tokens.username = f.data.username;
      const rooms = this.options.rooms ?? /** @type {"*"} */ ("*");
      const all = { rooms, device: this.options.device, resume: this.resume || undefined };
      link.joins = splitJoin(all, ID_JOIN, this.#frameBytes);
      for (const data of link.joins) link.write("join", data, ID_JOIN);
    } else if (f.event === "ack" && f.re === ID_JOIN) {
      link.early = link.early.filter((e) => e.event !== "catching_up" && e.event !== "caught_up"); // none of them covers this part
      this.#partJoined(link, f.data?.refused ?? [], joined);
    } else if (link.early.push(f) > MAX_EARLY) {
      joined.reject(new Error("the server does not answer join"));
    }
  }

  /**
   * A part of a join has its answer. With the last one the link has joined.
   * @param {Link} link
   * @param {{room: string, code: string}[]} refused
   * @param {Deferred<void>} joined
   */
  #partJoined(link, refused, joined) {
    const part = link.joins.shift();
    link.anyJoined ||= part?.rooms === "*" || refused.length < part?.rooms.length;
    link.refused.push(...refused);
    if (link.joins.length) return;
    link.joined = true;
    this.#attach(link);
    joined.resolve();
    for (const r of link.refused) this.#emit("notJoined", r);
    for (const early of link.early) this.#frame(link, early);
  }

  get #frameBytes() { return /** @type {any} */ (this.welcome)?.limits?.frame_bytes || FRAME_BYTES; }

  /** @param {Link} link */
  #attach(link) {
    this.#link = link;
    this.#up.resolve(link);
    if (this.#watch) link.write("watch_presence", { usernames: this.#watch });
    for (const room of this.#reads.keys()) this.#sayRead(room);
    this.#opened.resolve();
    this.#emit("connected", { again: this.#again });
    this.#again = true;
    void this.#tend(link);
  }

  /**
   * @param {Link} link
   * @param {unknown} error
   */
  #detach(link, error) {
    link.fail(error);
    if (this.#link !== link) return;
    this.#link = null;
    this.#up = new Deferred();
    for (const [id, outcome] of [...this.#pending]) {
      outcome.resolve(null);
      this.#pending.set(id, new Deferred()); // its message may come before it is sent again
    }
  }

  /**
   * Keeps a socket honest and its token fresh. A page cannot see the server's pings, so silence is broken by a question.
   * @param {Link} link
   */
  async #tend(link) {
    const beat = Math.max(5, /** @type {any} */ (this.welcome)?.heartbeat_s || 25) * 1000;
    while (this.#link === link) {
      const renew = Math.max(1000, this.session.renewAt - Date.now());
      await sleep(Math.min(beat, renew), link.ended.signal).catch(() => {});
      if (this.#link !== link) return;
      if (Date.now() >= this.session.renewAt) await this.session.token({ signal: this.#stop.signal }).catch(() => {}); // tried again in a second
      this.#ask(link);
    }
  }

  /**
   * However many messages wait, one question serves them all: frames are limited.
   * @param {Link} link
   */
  #ask(link) {
    const asked = Date.now();
    if (asked - link.asked < this.answerTimeout / 4) return;
    link.asked = asked;
    link.write("connection_alive", undefined, ID_ALIVE);
    sleep((this.answerTimeout * 2) / 3, link.ended.signal).then(() => {
      if (link.heard < asked) link.fail(new Error("the server does not answer"));
    }, () => {});
  }

  /**
   * One frame of a joined socket. A frame of a kind that this does not know is from a younger server, and ignored.
   * @param {Link} link
   * @param {any} f
   */
  #frame(link, f) {
    const d = f.data ?? {};
    switch (f.event) {
      case "message_accepted":
        return this.#incoming(...this.#own(d));
      case "received_message": {
        return this.#incoming(d, this.#returned(d));
      }
      case "error": {
        const e = serverError(f);
        const waiting = this.#pending.get(f.re);
        if (waiting) waiting.resolve(e);
        else if (f.re?.startsWith(ID_READ)) void this.#readAnswered(f.re, e);
        else if (f.re !== ID_ALIVE) this.#emit("refused", { error: e });
        return;
      }
      case "ack":
        if (f.re?.startsWith(ID_READ)) void this.#readAnswered(f.re, null);
        this.resume = d.resume || this.resume;
        return;
      case "catching_up":
      case "caught_up":
        // What was handed over and lies above it comes again after a break, and is dropped.
        this.resume = d.resume || this.resume;
        if (f.event === "caught_up") this.#emit("caughtUp", d);
        return;
      case "presence":
        return this.#emit("presence", { ...d, online: d.online ?? [], offline: d.offline ?? [] });
      case "typing":
        return this.#emit("typing", { room: d.conversation_room, username: d.username });
      case "message_read":
        return this.#emit("read", { room: d.conversation_room, username: d.username, seq: d.seq });
      case "message_delivered":
        return this.#emit("delivered", { room: d.conversation_room, username: d.username, seq: d.seq });
      case "contact_added":
      case "contact_removed":
        return this.#emit("contact", { ...d, removed: f.event === "contact_removed" });
      case "going_away":
        sleep(d.reconnect_in_ms ?? 0, link.ended.signal).then(() => {
          link.planned = true;
          link.fail(new CloseError(4001, "draining"));
        }, () => {});
    }
  }

  /**
   * Gives the send of a message its outcome; false when there is none.
   * @param {Message} m
   */
  #accepted(m) {
    const acc = { id: m.id, room: m.conversation_room, seq: m.seq, sentAt: m.sent_at };
    const waiting = this.#pending.get(m.id);
    if (!waiting) return false;
    waiting.resolve(acc);
    this.#emit("accepted", acc);
    return true;
  }

  /**
   * An acceptance as a message, and whether it makes no event. One whose sender gave up does: nobody was told.
   * @param {Message} d
   * @returns {[Message, boolean]}
   */
  #own(d) {
    const m = { ...d, sender: this.session.username, content: "" };
    if (this.#accepted(m)) return [m, true];
    const content = this.#texts.get(d.id);
    this.#texts.delete(d.id);
    return content === undefined ? [m, true] : [{ ...m, content }, false];
  }

  /**
   * Whether it is one's own message, back after a reconnect that ate its acceptance.
   * @param {Message} m
   */
  #returned(m) {
    // An id that was used before, for another text, is no answer to this one.
    return m.sender === this.session.username && (!m.content || this.#texts.get(m.id) === m.content) && this.#accepted(m);
  }

  /**
   * A message from the socket. own: sent by this connection, so it takes its place in the order but makes no event.
   * @param {Message} m
   * @param {boolean} own
   */
  #incoming(m, own) {
    const { twin, late } = this.#seen.look(m.conversation_room, m.seq);
    if (twin) return;
    this.#seen.add(m.conversation_room, m.seq);
    if (!own) this.#emit("message", late ? { ...m, late } : m);
  }
}

/** @param {any} f */
function serverError(f) {
  const d = f.data ?? {};
  return new ServerError(d.code ?? "internal", d.message ?? "the server sent an error without a code", d.retry_after_ms ?? 0);
}

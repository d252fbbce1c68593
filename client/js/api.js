// @ts-check
import { Connection } from "./connection.js";
import { ServerError, isCode } from "./errors.js";
import { sleep, within } from "./util.js";

/**
 * @typedef {{access_token: string, refresh_token?: string, expires_in?: number, username?: string}} Tokens
 * A message without text, content "", is one whose sender was erased.
 * @typedef {{sender: string, content: string, conversation_room: string, id: string, seq: number, prev?: number, sent_at: string, late?: boolean}} Message
 * @typedef {{username: string, room: string, online: boolean | null, last_seen?: string}} Contact
 * @typedef {{room: string, peer: string, last_message?: Message, unread: number, read_seq: number, delivered_seq: number, peer_read_seq: number, peer_delivered_seq: number}} Conversation
 * @typedef {{signal?: AbortSignal}} Abortable
 *
 * Where the tokens of a login are kept. `lock` keeps others (tabs of a browser) from renewing at the same time: the server ends
 * the whole login when it sees a refresh token after what that was traded for is in use.
 * @typedef {{load?: () => Tokens | null, save?: (t: Tokens) => void, lock?: (f: () => Promise<void>) => Promise<void>}} TokenStore
 */

const REQUEST_TIMEOUT = 30_000;
// An answer that was lost is asked for again soon, with the same token. A service answers within 3 s.
const TRADE_TRIES = 3;
const TRADE_TIMEOUT = 10_000;
const TRADE_PAUSE = 300;
const MAX_BODY = 8 << 20;

/** One deployment. */
export class Parley {
  /**
   * @param {string} baseURL http:// or https://, with a path prefix if there is one
   * @param {{fetch?: typeof fetch}} [options]
   */
  constructor(baseURL, options = {}) {
    const u = new URL(baseURL);
    if (u.protocol !== "http:" && u.protocol !== "https:") throw new TypeError(`${baseURL} is not http:// or https://`);
    this.base = (u.origin + u.pathname).replace(/\/+$/, "");
    this._fetch = options.fetch ?? ((input, init) => globalThis.fetch(input, init));
  }

  /**
   * Makes a user. Errors: invalid_username, invalid_argument (password too short), username_taken.
   * @param {string} username
   * @param {string} password
   * @param {Abortable} [o]
   * @returns {Promise<void>}
   */
  async register(username, password, o) {
    await this._do("POST", "/v1/users", { body: { username, password }, ...o });
  }

  /**
   * Error: unauthenticated, also where there is no such user.
   * @param {string} username
   * @param {string} password
   * @param {Abortable & {store?: TokenStore}} [o]
   * @returns {Promise<Session>}
   */
  async login(username, password, o) {
    const tokens = await this._do("POST", "/v1/sessions", { body: { username, password }, signal: o?.signal });
    o?.store?.save?.(tokens);
    return new Session(this, tokens, o?.store);
  }

  /**
   * A session of tokens that were kept. A bare access token will do; it cannot be renewed then.
   * @param {Tokens} tokens
   * @param {TokenStore} [store]
   */
  session(tokens, store) {
    return new Session(this, tokens, store);
  }

  /**
   * One request. What the server refuses is a ServerError.
   * @param {string} method
   * @param {string} path
   * @param {{body?: unknown, token?: string, signal?: AbortSignal}} [o]
   * @returns {Promise<any>}
   */
  async _do(method, path, o = {}) {
    /** @type {Record<string, string>} */
    const headers = {};
    if (o.body !== undefined) headers["Content-Type"] = "application/json";
    if (o.token) headers.Authorization = "Bearer " + o.token;
    const signal = within(REQUEST_TIMEOUT, o.signal);
    const resp = await this._fetch(this.base + path, {
      method, headers, signal, cache: "no-store", credentials: "omit", redirect: "error",
      body: o.body === undefined ? undefined : JSON.stringify(o.body),
    });
    if (!resp.ok) throw await problem(resp);
    if (resp.status === 204) return null;
    const text = await resp.text();
    if (text.length > MAX_BODY) throw new Error(`an answer is longer than ${MAX_BODY} bytes`);
    return JSON.parse(text);
  }
}

/**
 * Reads application/problem+json (RFC 9457); an answer without one, of a proxy perhaps, gets the code of its status.
 * @param {Response} resp
 */
async function problem(resp) {
  /** @type {any} */
  let p = {};
  try {
    p = await resp.json();
  } catch {
    // the status speaks
  }
  const retry = p.retry_after_ms ?? 1000 * (Number(resp.headers.get("Retry-After")) || 0);
  return new ServerError(p.code ?? codeOf(resp.status), p.detail ?? p.title ?? `HTTP ${resp.status}`, retry);
}

/** @param {number} status */
function codeOf(status) {
  /** @type {Record<number, string>} */
  const known = { 401: "unauthenticated", 403: "forbidden", 404: "not_found", 413: "too_large", 429: "rate_limited", 502: "unavailable", 503: "unavailable", 504: "unavailable" };
  return known[status] ?? (status < 500 ? "invalid_argument" : "internal");
}

/** One login. It renews its access token by itself. */
export class Session {
  /** @type {Promise<void> | null} */
  #renewing = null;
  /** @type {Set<(t: Tokens) => void>} */
  #listeners = new Set();
  #since = 0;

  /**
   * @param {Parley} api
   * @param {Tokens} tokens
   * @param {TokenStore} [store]
   */
  constructor(api, tokens, store = {}) {
    this.api = api;
    this.store = store;
    /** @type {Tokens} the present ones; they change with every renewal */
    this.tokens = tokens;
    this.#since = Date.now();
  }

  /** The registered form; "" for a bare token until a connection knows it. */
  get username() {
    return this.tokens.username ?? "";
  }

  /** When to renew: with a fifth of the token's life left. Infinity: never. */
  get renewAt() {
    const t = this.tokens;
    return t.refresh_token && t.expires_in ? this.#since + t.expires_in * 800 : Infinity;
  }

  get #expires() {
    const t = this.tokens;
    return t.expires_in ? this.#since + t.expires_in * 1000 : Infinity;
  }

  /**
   * Calls f with the new tokens of every renewal; the result ends that.
   * @param {(t: Tokens) => void} f
   */
  onRenewed(f) {
    this.#listeners.add(f);
    return () => void this.#listeners.delete(f);
  }

  /**
   * An access token that is good for a while yet.
   * @param {Abortable} [o]
   */
  async token(o) {
    const have = this.tokens;
    if (Date.now() < this.renewAt) return have.access_token;
    try {
      await this._renew(have, o);
    } catch (e) {
      // The login service may be away for a moment; this token is still good.
      if (isCode(e, "unauthenticated") || Date.now() >= this.#expires) throw e;
    }
    return this.tokens.access_token;
  }

  /**
   * Trades the refresh token for new tokens now. When it fails without a word of the server, it may be called again.
   * @param {Abortable} [o]
   */
  refresh(o) {
    return this._renew(this.tokens, o);
  }

  /**
   * Replaces the tokens `old`; another call, or another holder of the store, may have done it meanwhile. Calls never overlap.
   * @param {Tokens} old
   * @param {Abortable} [o]
   * @returns {Promise<void>}
   */
  async _renew(old, o) {
    if (this.tokens !== old) return; // two access tokens of one second are the same text
    this.#renewing ??= (this.store.lock ?? ((f) => f()))(() => this.#trade()).finally(() => (this.#renewing = null));
    await this.#renewing;
    o?.signal?.throwIfAborted();
  }

  async #trade() {
    const { refresh_token } = this.tokens;
    for (let tries = 1; ; tries++) {
      if (this.#adopt(refresh_token)) return;
      if (!refresh_token) throw new ServerError("unauthenticated", "the token has run out and cannot be renewed; log in again");
      try {
        // Without the caller's signal: the trade is everybody's.
        const t = await this.api._do("POST", "/v1/sessions/refresh", { body: { refresh_token }, signal: within(TRADE_TIMEOUT) });
        if (this.#adopt(refresh_token)) return; // another tab was quicker, and may have gone on from there
        this.store.save?.(t);
        return this.#set(t);
      } catch (e) {
        // The answer is lost: the server gives the same tokens again.
        if (e instanceof ServerError || tries === TRADE_TRIES) throw e;
      }
      await sleep(Math.random() * TRADE_PAUSE);
    }
  }

  /**
   * Takes the tokens of the store when they are others than those that `refresh_token` belongs to.
   * @param {string | undefined} refresh_token
   */
  #adopt(refresh_token) {
    const kept = this.store.load?.();
    if (!kept || kept.refresh_token === refresh_token) return false;
    this.#set(kept);
    return true;
  }

  /** @param {Tokens} t */
  #set(t) {
    this.tokens = { ...t, username: t.username || this.tokens.username };
    this.#since = Date.now();
    for (const f of this.#listeners) f(this.tokens);
  }

  /**
   * A request in the name of the user; a token that the server no longer takes is renewed once.
   * @param {string} method
   * @param {string} path
   * @param {{body?: unknown, signal?: AbortSignal}} [o]
   * @returns {Promise<any>}
   */
  async _do(method, path, o = {}) {
    const token = await this.token(o);
    const used = this.tokens;
    try {
      return await this.api._do(method, path, { ...o, token });
    } catch (e) {
      if (!isCode(e, "unauthenticated") || !this.tokens.refresh_token) throw e;
    }
    await this._renew(used, o);
    return this.api._do(method, path, { ...o, token: this.tokens.access_token });
  }

  /**
   * Ends the login; its connections are closed with 4502.
   * @param {Abortable} [o]
   */
  async logout(o) {
    await this._do("DELETE", "/v1/sessions/current", o);
  }

  /**
   * Those one may chat with, by name. `next` goes into `after` of the next call.
   * @param {{prefix?: string, after?: string, limit?: number} & Abortable} [q]
   * @returns {Promise<{contacts: Contact[], next?: string}>}
   */
  contacts({ signal, ...q } = {}) {
    return this._do("GET", "/v1/contacts" + query(q), { signal });
  }

  /**
   * The user's conversations, the youngest first.
   * @param {{after?: string, limit?: number} & Abortable} [q]
   * @returns {Promise<{conversations: Conversation[], next?: string, behind?: true}>}
   */
  conversations({ signal, ...q } = {}) {
    return this._do("GET", "/v1/conversations" + query(q), { signal });
  }

  /**
   * A page of a room, oldest first: before a seq, after one (0: from the first on), or the last ones.
   * @param {string} room
   * @param {{before?: number, after?: number, limit?: number} & Abortable} [q]
   * @returns {Promise<{messages: Message[], more: boolean, behind?: true}>} behind: the server's history is more than a second behind, and
   *   the youngest messages may be missing
   */
  messages(room, { signal, ...q } = {}) {
    return this._do("GET", `/v1/rooms/${encodeURIComponent(room)}/messages` + query(q), { signal });
  }

  /**
   * Walks through a room: from the youngest message to the oldest, or, with `after`, upwards from there. Pages are asked for as
   * they are needed. Upwards it ends with the ServerError "unavailable" when the server's history is behind and has no more for now.
   * @param {string} room
   * @param {{before?: number, after?: number, limit?: number} & Abortable} [q]
   * @returns {AsyncGenerator<Message, void, undefined>}
   */
  async *history(room, { before, after, limit = 100, signal } = {}) {
    const up = after !== undefined;
    for (;;) {
      const page = await this.messages(room, up ? { after, limit, signal } : { before, limit, signal });
      const list = up ? page.messages : page.messages.toReversed?.() ?? [...page.messages].reverse();
      for (const m of list) {
        signal?.throwIfAborted();
        yield m;
      }
      const last = list.at(-1);
      if (up && page.behind && !last) throw new ServerError("unavailable", "the server's history is behind; try again later");
      if (!page.more || !last) return;
      if (up) after = last.seq;
      else before = last.seq;
    }
  }

  /**
   * Opens a connection that stays up by itself.
   * @param {import("./connection.js").ConnectOptions} [options]
   */
  connect(options) {
    return new Connection(this, options);
  }
}

/** @param {Record<string, string | number | undefined>} q */
function query(q) {
  const p = new URLSearchParams();
  for (const [k, v] of Object.entries(q)) if (v !== undefined && v !== "") p.set(k, String(v));
  const s = p.toString();
  return s && "?" + s;
}

/**
 * The room of two users: registered names, by code point.
 * @param {string} a
 * @param {string} b
 */
export function roomOf(a, b) {
  return before(b, a) ? `${b}&${a}` : `${a}&${b}`;
}

/**
 * Code point order: JavaScript's own compares UTF-16 units, which differs above U+FFFF.
 * @param {string} a
 * @param {string} b
 */
function before(a, b) {
  const x = Array.from(a, (c) => c.codePointAt(0) ?? 0);
  const y = Array.from(b, (c) => c.codePointAt(0) ?? 0);
  for (let i = 0; i < Math.min(x.length, y.length); i++) if (x[i] !== y[i]) return x[i] < y[i];
  return x.length < y.length;
}

/**
 * The other user of a room.
 * @param {string} room
 * @param {string} user
 */
export function peerOf(room, user) {
  const [a, b] = room.split("&");
  return a === user ? b : a;
}

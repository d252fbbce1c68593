// @ts-check
// Everything that the page knows, and everything that it can do. Views read it and call it; `changed` draws them.
import { Parley, ServerError, newId, roomOf } from "./js/index.js";
import { keep, tokenStore } from "./keep.js";
import { Leaving, aged } from "./leave.js";
import { Room, toLine } from "./room.js";

/**
 * @typedef {{name: string, room: string, online: boolean | null, lastSeen: number, key: string}} Person
 * @typedef {"offline" | "connecting" | "catching" | "caught" | "up"} Status
 */

const PAGE = 200;
const CONTACT_PAGES = 20; // of 1,000
const CONVERSATION_PAGES = 50; // of 200
const TYPING_MS = 5000;
const TYPING_EVERY = 3000;
const LOOK_MS = 50; // how long a change of what is on the screen waits for another one
const CAUGHT_UP_MS = 2500; // how long "caught up" shows

const collator = new Intl.Collator(undefined, { sensitivity: "base", numeric: true });

/** What a search compares: without case and accents. @param {string} s */
export const fold = (s) => s.normalize("NFKD").replace(/\p{M}/gu, "").toLocaleLowerCase().replace(/[ıøłđħ]/g, (c) => "ioldh"["ıøłđħ".indexOf(c)]);

export class Store {
  api = new Parley(new URL(".", location.href).href);
  /** @type {import("../../../../client/js/api.js").Session | null} */
  session = null;
  /** @type {import("../../../../client/js/connection.js").Connection | null} */
  conn = null;
  me = "";
  /** @type {Status} */
  status = "connecting";
  missed = false; // the connection was away: "caught up" is worth a word
  leaving = new Leaving(this.api, () => this.changed());
  farewell = ""; // why the login ended by itself
  /** @type {Map<string, Person>} */
  people = new Map();
  /** @type {Map<string, Room>} */
  rooms = new Map();
  /** @type {string[]} open conversations, the one used last comes last in `used` */
  panes = [];
  /** @type {string[]} */
  used = [];
  active = "";
  wanted = ""; // whose field is to have the focus once it is drawn
  search = "";
  ready = false; // contacts and conversations have been read once
  listError = "";
  announcement = ""; // for screen readers
  contentBytes = 16 << 10;
  /** @type {() => void} */
  onChange = () => {};

  /** @type {Person[] | null} */
  #byName = null;
  /** @type {Person[] | null} */
  #listed = null;
  #typed = { room: "", at: 0 }; // when the other side was last told that one types
  #pumping = new Set();
  /** Presence is told of some people only, and of others nothing is known: those on the screen are asked for. */
  #partial = false;
  /** @type {string[]} on the screen, at most 1,000 */
  #shown = [];
  #asked = ""; // those whom the connection was last asked for
  #looking = false;
  /** @type {Map<string, string>} what storage has: rows of the list ask for it at every frame */
  #drafts = new Map();

  // --- login ---

  /** Takes up the login that this browser kept. */
  resume() {
    void this.leaving.go();
    const t = tokenStore.load();
    if (!t?.refresh_token) return;
    this.#begin(this.api.session(aged(t), tokenStore));
  }

  /**
   * @param {string} name
   * @param {string} password
   * @param {boolean} fresh a new account
   */
  async login(name, password, fresh) {
    if (fresh) await this.api.register(name, password);
    this.farewell = "";
    this.#begin(await this.api.login(name, password, { store: tokenStore }));
  }

  /** @param {import("../../../../client/js/api.js").Session} session */
  #begin(session) {
    this.session = session;
    this.me = session.username;
    this.#open(keep.json(`panes.${this.me}`) ?? []);
    for (const key of keep.keys(`out.${this.me}.`)) {
      const o = keep.json(key);
      if (o) this.room(o.room).out.push(o);
    }
    for (const r of this.rooms.values()) r.out.sort((a, b) => a.at - b.at);
    this.#connect(session);
    for (const r of this.rooms.values()) void this.#pump(r);
    void this.#load(true);
    this.changed();
  }

  async logout() {
    const { session, conn } = this;
    const tokens = tokenStore.load() ?? session?.tokens; // of another tab perhaps, and younger
    this.#end("");
    keep.clear();
    if (tokens) this.leaving.add(tokens);
    await conn?.close();
    await this.leaving.go();
  }

  /** @param {string} why */
  #end(why) {
    this.farewell = why;
    this.session = this.conn = null;
    this.me = this.active = this.search = "";
    this.people.clear();
    this.rooms.clear();
    this.#drafts.clear();
    this.panes = [];
    this.used = [];
    this.ready = false;
    this.#byName = this.#listed = null;
    this.#partial = false;
    this.#asked = "";
    this.changed();
  }

  // --- the connection ---

  /** @param {import("../../../../client/js/api.js").Session} session */
  #connect(session) {
    const c = (this.conn = session.connect());
    this.status = navigator.onLine ? "connecting" : "offline";
    c.on("connected", ({ again }) => {
      this.status = "catching";
      this.missed = again;
      const limits = /** @type {any} */ (c.welcome)?.limits;
      if (limits?.content_bytes) this.contentBytes = limits.content_bytes;
      if (!this.me) this.me = session.username;
      this.changed();
    });
    c.on("caughtUp", () => {
      this.status = this.missed ? "caught" : "up";
      if (this.missed) void this.#load(false); // markers that moved meanwhile are not sent again
      setTimeout(() => {
        if (this.status !== "caught") return;
        this.status = "up";
        this.changed();
      }, CAUGHT_UP_MS);
      this.changed();
    });
    c.on("disconnected", () => {
      this.status = navigator.onLine ? "connecting" : "offline";
      this.changed();
    });
    c.on("closed", ({ error }) => {
      if (this.conn !== c) return;
      const e = /** @type {any} */ (error);
      const gone = e?.code === 4503 ? "This account has been disabled." : "You have been logged out. Log in again to go on.";
      keep.set("tokens", null);
      this.#end(gone);
    });
    c.on("message", (m) => this.#arrived(m));
    c.on("presence", (p) => this.#presence(p));
    c.on("typing", ({ room }) => {
      const r = this.room(room);
      r.typingUntil = Date.now() + TYPING_MS;
      setTimeout(() => this.changed(), TYPING_MS + 50);
      this.changed();
    });
    c.on("read", ({ room, username, seq }) => {
      const r = this.room(room);
      const recount = username === this.me && r.miscounts(seq);
      r.marker(username, seq, true);
      if (recount) void this.#load(false);
      this.changed();
    });
    c.on("delivered", ({ room, username, seq }) => {
      this.room(room).marker(username, seq, false);
      this.changed();
    });
    c.on("contact", ({ username, room, removed }) => {
      if (removed) this.people.delete(username);
      else this.#person(username, room);
      this.#byName = this.#listed = null;
      this.changed();
    });
    addEventListener("online", () => c.hurry(), { signal: signalOf(c) });
    addEventListener("offline", () => {
      if (this.status !== "up") this.status = "offline";
      c.hurry(); // finds out whether the connection is really gone
      this.changed();
    }, { signal: signalOf(c) });
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") c.hurry();
    }, { signal: signalOf(c) });
  }

  /** @param {import("../../../../client/js/api.js").Message} m */
  #arrived(m) {
    const r = this.room(m.conversation_room);
    const line = toLine(m);
    if (!r.arrived(line)) return;
    if (line.sender === this.me) keep.set(`out.${this.me}.${line.id}`, null);
    else if (!line.gone) {
      if (this.panes.includes(r.name)) this.announcement = `${line.sender}: ${line.content.slice(0, 300)}`;
      this.#notify(r, line);
    }
    this.#listed = null;
    this.changed();
  }

  /** @param {import("../../../../client/js/connection.js").Events["presence"]} p */
  #presence(p) {
    if (p.snapshot) this.#partial = !!p.partial;
    // A picture of some people says nothing of the others.
    if (p.snapshot || p.unknown) for (const x of this.people.values()) x.online = p.unknown || p.partial ? null : false;
    for (const name of p.online) this.#person(name).online = true;
    for (const o of p.offline) {
      const x = this.#person(o.username);
      x.online = false;
      if (o.last_seen) x.lastSeen = Date.parse(o.last_seen);
    }
    this.#look();
    this.changed();
  }

  /** The list shows these people, or is about to. @param {string[]} names */
  shows(names) {
    this.#shown = [...new Set([...this.panes.map((r) => this.room(r).peer), ...names])].slice(0, 1000).sort();
    this.#look();
  }

  /** Asks for the presence of those on the screen, where not everybody's is told. */
  #look() {
    if (!this.#partial || this.#looking || this.#shown.join("\n") === this.#asked) return;
    this.#looking = true;
    setTimeout(() => {
      this.#looking = false;
      const asked = this.#shown.join("\n");
      if (!this.conn?.connected || asked === this.#asked) return;
      this.conn.watch(this.#shown); // again by itself, on each new connection
      this.#asked = asked;
    }, LOOK_MS);
  }

  /**
   * @param {string} name
   * @param {string} [room]
   * @returns {Person}
   */
  #person(name, room) {
    let p = this.people.get(name);
    if (!p) {
      p = { name, room: room ?? roomOf(this.me, name), online: null, lastSeen: 0, key: fold(name) };
      this.people.set(name, p);
      this.#byName = this.#listed = null;
    }
    return p;
  }

  /** @param {string} name */
  person(name) {
    return this.people.get(name) ?? { name, room: roomOf(this.me, name), online: null, lastSeen: 0, key: fold(name) };
  }

  /**
   * Reads contacts and conversations. Answers and live events may overtake each other: rooms and people merge both.
   * @param {boolean} all with the contacts, and beyond the first page
   */
  async #load(all) {
    const session = this.session;
    if (!session) return;
    for (let wait = 500; this.session === session; wait = Math.min(2 * wait, 15_000)) {
      try {
        let after;
        for (let i = 0; i < (all ? CONVERSATION_PAGES : 1); i++) {
          const page = await session.conversations({ limit: 200, after });
          for (const c of page.conversations) {
            this.room(c.room).summary(c);
            this.#person(c.peer, c.room);
          }
          this.#listed = null;
          this.changed();
          if (!(after = page.next)) break;
        }
        if (!all) return;
        after = undefined;
        for (let i = 0; i < CONTACT_PAGES; i++) {
          const page = await session.contacts({ limit: 1000, after });
          for (const c of page.contacts) {
            const p = this.#person(c.username, c.room);
            // Once the connection has given its snapshot, what it says is younger; and nobody tells of those that are not on the screen.
            if (!this.#partial && (p.online === null || this.status !== "up")) p.online = c.online;
            if (c.last_seen) p.lastSeen = Math.max(p.lastSeen, Date.parse(c.last_seen));
          }
          if (!(after = page.next)) break;
        }
        this.ready = true;
        this.listError = "";
        this.changed();
        return;
      } catch (e) {
        if (this.session !== session) return;
        if (e instanceof ServerError && e.code === "unauthenticated") {
          await this.conn?.close(); // "closed" ends the login
          return;
        }
        this.listError = "Contacts cannot be read right now. Trying again…";
        this.changed();
        await new Promise((r) => setTimeout(r, Math.random() * wait));
      }
    }
  }

  // --- conversations ---

  /** @param {string} name */
  room(name) {
    let r = this.rooms.get(name);
    if (!r) this.rooms.set(name, (r = new Room(name, this.me)));
    return r;
  }

  /** The contacts in the order of the list: those spoken to last first, then the others by name. */
  get listed() {
    if (this.#listed) return this.#listed;
    this.#byName ??= [...this.people.values()].sort((a, b) => collator.compare(a.name, b.name));
    const wanted = fold(this.search.trim());
    const talked = [...this.rooms.values()].filter((r) => r.at > 0).sort((a, b) => b.at - a.at);
    const names = new Set(talked.map((r) => r.peer));
    const list = [...talked.map((r) => this.#person(r.peer, r.name)), ...(this.#byName ?? []).filter((p) => !names.has(p.name))];
    return (this.#listed = wanted ? list.filter((p) => p.key.includes(wanted)) : list);
  }

  /** @param {string} text */
  find(text) {
    this.search = text;
    this.#listed = null;
    this.changed();
  }

  get unread() {
    let n = 0;
    for (const r of this.rooms.values()) n += r.unread;
    return n;
  }

  /** @param {string[]} rooms */
  #open(rooms) {
    this.panes = rooms.filter((r) => typeof r === "string" && r.split("&").includes(this.me));
    this.used = [...this.panes];
    this.active = this.panes[0] ?? "";
    for (const r of this.panes) this.room(r);
  }

  /**
   * Opens a conversation beside the others; when `most` are open, in the place of the one used least recently.
   * @param {string} name
   * @param {number} most
   */
  open(name, most) {
    const r = this.room(name);
    if (!this.panes.includes(name)) {
      r.newFrom = r.unread > 0 ? r.readSeq + 1 : 0;
      if (this.panes.length < most) this.panes = [...this.panes, name];
      else {
        const oldest = this.used.find((u) => this.panes.includes(u)) ?? this.panes[0];
        this.panes = this.panes.map((p) => (p === oldest ? name : p));
      }
    }
    this.focus(name);
    this.wanted = name;
    this.changed();
    if (!r.loaded) void this.older(r);
  }

  /** @param {string} name */
  focus(name) {
    if (this.active === name && this.used.at(-1) === name) return;
    this.active = name;
    this.used = [...this.used.filter((u) => u !== name && this.panes.includes(u)), name];
    keep.set(`panes.${this.me}`, JSON.stringify(this.panes));
    this.changed();
  }

  /** @param {string} name */
  close(name) {
    this.panes = this.panes.filter((p) => p !== name);
    this.used = this.used.filter((p) => p !== name);
    if (this.active === name) this.wanted = this.active = this.used.at(-1) ?? "";
    keep.set(`panes.${this.me}`, JSON.stringify(this.panes));
    this.changed();
  }

  /** The page before what is there. @param {Room} r */
  older(r) {
    const { session } = this;
    if (!session || !r.more || r.loading) return r.loading;
    r.loading = (async () => {
      try {
        const before = r.loaded ? r.lines[0]?.seq : undefined;
        const page = await session.messages(r.name, { before, limit: PAGE });
        r.insert(page.messages.map(toLine));
        r.more = page.more;
        r.loaded = true;
        r.failed = "";
      } catch (e) {
        r.failed = e instanceof ServerError && e.code !== "unavailable" ? e.message : "Older messages cannot be read right now.";
      } finally {
        r.loading = null;
        r.version++;
        this.#listed = null;
        this.changed();
      }
    })();
    this.changed();
    return r.loading;
  }

  /**
   * The reader has seen everything of a conversation.
   * @param {Room} r
   */
  seen(r) {
    if (r.youngestOfPeer <= r.readSeq || !this.conn?.connected) return;
    // Up to one's own last message: the server's count of what is unread goes up to there, too.
    const seq = r.lines.at(-1)?.seq ?? 0;
    this.conn.read(r.name, seq);
    r.marker(this.me, seq, true);
    this.changed();
  }

  // --- writing ---

  /** @param {string} room */
  draft(room) {
    let text = this.#drafts.get(room);
    if (text === undefined) this.#drafts.set(room, (text = keep.get(`draft.${this.me}.${room}`) ?? ""));
    return text;
  }

  /**
   * @param {string} room
   * @param {string} text
   */
  write(room, text) {
    keep.set(`draft.${this.me}.${room}`, text);
    this.#drafts.set(room, text);
    const now = Date.now();
    if (!text || (room === this.#typed.room && now - this.#typed.at < TYPING_EVERY) || !this.conn?.connected) return;
    this.#typed = { room, at: now };
    this.conn.typing(room);
  }

  /**
   * Queues a message. It is kept until it is stored, also over a reload.
   * @param {string} room
   * @param {string} content
   */
  submit(room, content) {
    const r = this.room(room);
    const o = { id: newId(), room, content, at: Date.now() };
    keep.set(`out.${this.me}.${o.id}`, JSON.stringify(o));
    keep.set(`draft.${this.me}.${room}`, null);
    this.#drafts.delete(room);
    this.#typed.at = 0;
    r.out = [...r.out, o];
    r.newFrom = 0;
    r.version++;
    this.#listed = null;
    this.changed();
    void this.#pump(r);
  }

  /**
   * Sends what waits, one after the other: their order is the order in which they were written.
   * @param {Room} r
   */
  async #pump(r) {
    const { conn, me } = this;
    if (!conn || this.#pumping.has(r)) return;
    this.#pumping.add(r);
    for (let o; (o = r.out.find((x) => !x.error)); ) {
      const item = o;
      try {
        const retry = item.tried;
        item.tried = true; // from here on a reload has to ask for what has become of it
        keep.set(`out.${me}.${item.id}`, JSON.stringify(item));
        const acc = await conn.send(r.name, item.content, { id: item.id, retry });
        r.insert([{ seq: acc.seq, sender: me, content: item.content, id: item.id, at: Date.parse(acc.sentAt), h: item.h, gen: item.gen }]);
        keep.set(`out.${me}.${item.id}`, null);
        r.drop(item.id);
      } catch (e) {
        if (!(e instanceof ServerError)) break; // the login is over
        item.error = e.message;
        r.version++;
      }
      this.#listed = null;
      this.changed();
    }
    this.#pumping.delete(r);
  }

  /**
   * @param {Room} r
   * @param {import("./room.js").Outgoing} o
   * @param {boolean} again send it again, or throw it away
   */
  settle(r, o, again) {
    if (again) {
      o.error = undefined;
      r.version++;
      void this.#pump(r);
    } else {
      keep.set(`out.${this.me}.${o.id}`, null);
      r.drop(o.id);
    }
    this.changed();
  }

  // --- outside the page ---

  get mayNotify() {
    return "Notification" in window ? Notification.permission : "denied";
  }

  async askToNotify() {
    await Notification.requestPermission();
    this.changed();
  }

  /**
   * @param {Room} r
   * @param {import("./room.js").Line} line
   */
  #notify(r, line) {
    if (this.mayNotify !== "granted" || document.hasFocus()) return;
    try {
      const n = new Notification(line.sender, { body: line.content.slice(0, 200), tag: r.name, icon: "web/icon.svg" });
      n.onclick = () => {
        focus();
        this.open(r.name, Math.max(1, this.panes.length));
        n.close();
      };
    } catch {
      // phones allow it to service workers only
    }
  }

  changed() {
    this.onChange();
  }
}

/** Aborts when a connection has ended for good. @param {import("../../../../client/js/connection.js").Connection} c */
function signalOf(c) {
  const stop = new AbortController();
  void c.closed.then(() => stop.abort());
  return stop.signal;
}

// @ts-check
// One conversation as this page knows it.
import { peerOf } from "./js/index.js";

/**
 * @typedef {import("../../../../client/js/api.js").Message} Message
 * @typedef {{seq: number, sender: string, content: string, id: string, at: number, gone?: boolean, h?: number, gen?: number}} Line a message; gone: its sender was erased; h is its measured height
 * @typedef {{id: string, room: string, content: string, at: number, tried?: boolean, error?: string, h?: number, gen?: number}} Outgoing waits for its acceptance
 */

// Messages that came live are kept for a room that nobody has opened yet, for history may be a moment behind them.
const KEPT_UNOPENED = 200;

// What stands for a message whose sender was erased: it has no text any more.
const ERASED = { content: "This message was erased.", gone: true, h: 0 };

export class Room {
  /** @type {Line[]} by seq */
  lines = [];
  /** @type {Outgoing[]} */
  out = [];
  /** @type {Line | null} */
  last = null;
  loaded = false; // the youngest page has been read
  more = true; // there is something older
  /** @type {Promise<void> | null} */
  loading = null;
  failed = ""; // why the last page could not be read
  readSeq = 0;
  peerRead = 0;
  peerDelivered = 0;
  typingUntil = 0;
  newFrom = 0; // the first message that was unread when the conversation was opened
  version = 0; // counts changes, for what is drawn of it

  #base = { unread: 0, upto: 0 }; // what the server counted, and the youngest message that it knew
  /** @type {number[]} seqs of the peer's messages that came live */
  #live = [];

  /**
   * @param {string} name
   * @param {string} me
   */
  constructor(name, me) {
    this.name = name;
    this.me = me;
    this.peer = peerOf(name, me);
  }

  get unread() {
    const { unread, upto } = this.#base;
    let n = this.readSeq < upto || !upto ? unread : 0;
    for (const seq of this.#live) if (seq > upto && seq > this.readSeq) n++;
    return n;
  }

  /** When something was last said: what the list is sorted by. */
  get at() {
    return Math.max(this.last?.at ?? 0, this.out.at(-1)?.at ?? 0);
  }

  /** @param {import("../../../../client/js/api.js").Conversation} c */
  summary(c) {
    this.#base = { unread: c.unread, upto: c.last_message?.seq ?? 0 };
    this.#live = this.#live.filter((seq) => seq > this.#base.upto);
    this.readSeq = Math.max(this.readSeq, c.read_seq);
    this.peerRead = Math.max(this.peerRead, c.peer_read_seq);
    this.peerDelivered = Math.max(this.peerDelivered, c.peer_delivered_seq);
    if (c.last_message) {
      const last = toLine(c.last_message);
      this.#newest(last);
      if (last.gone) for (const line of this.lines) if (line.sender === last.sender) Object.assign(line, ERASED); // all of them are
    }
    this.version++;
  }

  /**
   * A message that came live. False when it is here already.
   * @param {Line} line
   */
  arrived(line) {
    if (!this.insert([line])) return false;
    if (line.sender === this.me) this.drop(line.id);
    else {
      this.typingUntil = 0;
      this.#live.push(line.seq);
      if (this.#live.length > 10_000) this.#live.shift(); // a badge says 99+ long before
    }
    if (!this.loaded && this.lines.length > KEPT_UNOPENED) this.lines.shift();
    return true;
  }

  /** @param {Line} line */
  #newest(line) {
    if (!this.last || line.seq >= this.last.seq) this.last = line;
  }

  /**
   * Puts messages where they belong; how many of them are new.
   * @param {Line[]} list rising
   */
  insert(list) {
    let added = 0;
    const first = this.lines[0], youngest = list.at(-1);
    if (first && youngest && youngest.seq < first.seq) {
      this.lines = list.concat(this.lines); // a page of history, the usual case
      added = list.length;
    } else {
      for (const line of list) {
        let at = this.lines.length;
        while (at > 0 && this.lines[at - 1].seq > line.seq) at--;
        if (at > 0 && this.lines[at - 1].seq === line.seq) {
          if (line.gone) this.lines[at - 1] = line; // erased since it was read
          continue;
        }
        this.lines.splice(at, 0, line);
        added++;
      }
    }
    const end = this.lines.at(-1);
    if (end) this.#newest(end);
    this.version++;
    return added;
  }

  /**
   * A message of one's own has been stored, or given up.
   * @param {string} id
   */
  drop(id) {
    this.out = this.out.filter((o) => o.id !== id);
    this.version++;
  }

  /**
   * @param {string} who
   * @param {number} seq
   * @param {boolean} read
   */
  marker(who, seq, read) {
    if (who === this.me) {
      if (read) {
        this.readSeq = Math.max(this.readSeq, seq);
        this.#live = this.#live.filter((s) => s > seq);
      }
    } else {
      if (read) this.peerRead = Math.max(this.peerRead, seq);
      this.peerDelivered = Math.max(this.peerDelivered, seq);
    }
    this.version++;
  }

  /**
   * Whether the server's count says nothing any more, because another device has read a part of what it counted.
   * @param {number} seq
   */
  miscounts(seq) {
    return this.#base.unread > 0 && seq < this.#base.upto;
  }

  /** The youngest message of the peer, 0 for none. */
  get youngestOfPeer() {
    for (let i = this.lines.length - 1; i >= 0 && i > this.lines.length - 500; i--) if (this.lines[i].sender !== this.me) return this.lines[i].seq;
    return 0;
  }

  /**
   * What has become of a message of one's own.
   * @param {number} seq
   * @returns {"accepted" | "delivered" | "read"}
   */
  state(seq) {
    return seq <= this.peerRead ? "read" : seq <= this.peerDelivered ? "delivered" : "accepted";
  }
}

/**
 * @param {Message} m
 * @returns {Line}
 */
export function toLine(m) {
  const line = { seq: m.seq, sender: m.sender, content: m.content, id: m.id, at: Date.parse(m.sent_at) };
  return m.content ? line : { ...line, ...ERASED };
}

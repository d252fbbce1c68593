// @ts-check
/** @typedef {import("./api.js").Message} Message */

// Limits, and what happens at each.
export const MAX_ROOMS = 4096; // rooms remembered: the one used least recently is forgotten, its next message starts it anew
export const MAX_SEEN = 512; // seqs and ids remembered a room: the lowest is forgotten, and all below it counts as seen
const MAX_SINCE = 500; // rooms that a join may name

/** What has been seen of one room. */
export class RoomState {
  /** @param {string} name */
  constructor(name) {
    this.name = name;
    this.floor = 0; // everything from base up to here counts as seen
    this.base = 0; // the first seq that was forgotten; what is below has never been here
    /** @type {number[]} seen above floor, rising */
    this.seqs = [];
    /** @type {(number | undefined)[]} the prev of each of them, where it is known */
    this.prevs = [];
    /** @type {Set<string>} sender and id; a Set keeps the order of insertion */
    this.ids = new Set();
    /** @type {{held: {m: Message, own: boolean}[], stop: AbortController} | null} a gap that is being filled */
    this.repair = null;
  }

  /** @param {number} seq */
  #at(seq) {
    let lo = 0, hi = this.seqs.length;
    while (lo < hi) {
      const mid = (lo + hi) >> 1;
      if (this.seqs[mid] < seq) lo = mid + 1;
      else hi = mid;
    }
    return lo;
  }

  /** @param {Message} m */
  seen(m) {
    if (this.seqs[this.#at(m.seq)] === m.seq || this.ids.has(m.sender + "&" + m.id)) return true;
    // Below the floor nothing is known exactly. What the server calls late is new to it: twice is better than never.
    return m.seq <= this.floor && m.seq >= this.base && !m.late;
  }

  /** @param {Message} m */
  mark(m) {
    const at = this.#at(m.seq);
    if (this.seqs[at] === m.seq) this.prevs[at] ??= m.prev;
    else if (m.seq > this.floor) {
      this.seqs.splice(at, 0, m.seq);
      this.prevs.splice(at, 0, m.prev);
      if (this.seqs.length > MAX_SEEN) {
        this.floor = /** @type {number} */ (this.seqs.shift());
        this.base ||= this.floor;
        this.prevs.shift();
      }
    }
    this.ids.add(m.sender + "&" + m.id);
    if (this.ids.size > MAX_SEEN) for (const first of this.ids) return void this.ids.delete(first);
  }

  /**
   * The seq after which something is missing right before m; null when nothing is. What is older than all that is known here was
   * dealt with in an earlier life, and late messages are the filling of a gap.
   * @param {Message} m
   */
  gap(m) {
    const at = this.#at(m.seq);
    if (m.late || (at === 0 && (this.floor === 0 || m.seq <= this.floor))) return null;
    const after = at === 0 ? this.floor : this.seqs[at - 1];
    return m.prev === undefined || m.prev > after ? after : null;
  }

  get youngest() {
    return this.seqs.at(-1) ?? this.floor;
  }

  /** From before the first to behind the last place where something may be missing between what was seen; null for none. */
  get hole() {
    /** @type {{after: number, upto: number} | null} */
    let hole = null;
    for (let i = this.floor ? 0 : 1; i < this.seqs.length; i++) {
      const after = i ? this.seqs[i - 1] : this.floor, prev = this.prevs[i];
      if (prev === undefined || prev > after) hole = { after: hole ? hole.after : after, upto: this.seqs[i] };
    }
    return hole;
  }
}

/** What has been seen, by room. */
export class Ledger {
  /** @type {Map<string, RoomState>} the one used last comes last */
  #rooms = new Map();

  /** @param {string} name */
  room(name) {
    const r = this.#rooms.get(name) ?? new RoomState(name);
    this.#rooms.delete(name);
    this.#rooms.set(name, r);
    if (this.#rooms.size > MAX_ROOMS) for (const first of this.#rooms.keys()) { this.#rooms.delete(first); break; }
    return r;
  }

  get size() {
    return this.#rooms.size;
  }

  /** Up to where each room used lately has no hole, as many as a join may name; undefined for none. */
  since() {
    /** @type {Record<string, number>} */
    const out = {};
    let n = 0;
    for (const r of [...this.#rooms.values()].reverse()) {
      if (r.youngest > 0 && n++ < MAX_SINCE) out[r.name] = r.hole?.after ?? r.youngest;
    }
    return n ? out : undefined;
  }

  /** The rooms that have holes. */
  get holed() {
    return [...this.#rooms.values()].filter((r) => r.hole);
  }
}

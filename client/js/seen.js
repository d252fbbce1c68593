// @ts-check
export const MAX_SEEN = 16_384; // messages remembered at least; twice as many at most

/**
 * Which messages have been handed over, in two generations: when the young one is full, it becomes the old one, whose messages are forgotten.
 * Twins lie above the newest resume token, which only a server can read: nothing of a token makes a message forgettable, only younger ones do.
 */
export class Seen {
  /** @type {Map<string, {seqs: Set<number>, top: number}>[]} the young one first */
  #generations = [new Map(), new Map()];
  size = 0; // of the young one

  /**
   * Whether message `seq` of `room` was added before, and whether a younger one of the room was.
   * @param {string} room
   * @param {number} seq
   */
  look(room, seq) {
    const known = this.#generations.map((g) => g.get(room));
    return { twin: known.some((r) => r?.seqs.has(seq)), late: known.some((r) => r && seq < r.top) };
  }

  /**
   * @param {string} room
   * @param {number} seq
   */
  add(room, seq) {
    const [young] = this.#generations;
    const r = young.get(room) ?? { seqs: new Set(), top: 0 };
    young.set(room, r);
    r.seqs.add(seq);
    r.top = Math.max(r.top, seq);
    if (++this.size < MAX_SEEN) return;
    this.#generations = [new Map(), young];
    this.size = 0;
  }
}

// @ts-check
// Ending logins at the server. The page forgets a login at once; the server has to answer that it did, so the tokens are kept apart until then, also over a
// reload, and it is asked again.
import { ServerError, newId } from "./js/index.js";
import { keep } from "./keep.js";

const KEPT = "leaving.";
const FIRST = 2000; // ms before the second try; twice as long before every other one
const LAST = 60_000;

export class Leaving {
  /** The server has not answered, and the user has to know. */
  failed = false;
  #pause = FIRST;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #trying = false;

  /**
   * @param {import("../../../../client/js/api.js").Parley} api
   * @param {() => void} changed
   */
  constructor(api, changed) {
    this.api = api;
    this.changed = changed;
    addEventListener("online", () => void this.go());
  }

  /** A login that is to end. @param {import("../../../../client/js/api.js").Tokens} tokens */
  add(tokens) {
    keep.set(KEPT + newId(), JSON.stringify(tokens));
    this.#pause = FIRST;
  }

  /** Asks for all that are kept, and again after a pause for those without an answer. */
  async go() {
    if (this.#trying) return;
    this.#trying = true;
    clearTimeout(this.#timer);
    await Promise.all(keep.keys(KEPT).map((key) => this.#end(key)));
    this.#trying = false;
    const left = keep.keys(KEPT).length > 0;
    if (left !== this.failed) {
      this.failed = left;
      this.changed();
    }
    if (!left) return;
    this.#timer = setTimeout(() => void this.go(), this.#pause);
    this.#pause = Math.min(2 * this.#pause, LAST);
  }

  /** @param {string} key */
  async #end(key) {
    const tokens = keep.json(key);
    try {
      // Renewed tokens are kept in its place; another tab may have ended it meanwhile.
      await this.api.session(aged(tokens), {
        load: () => keep.json(key),
        save: (t) => keep.get(key) && keep.set(key, JSON.stringify({ ...t, at: Date.now() })),
      }).logout();
    } catch (e) {
      // Refused: the server knows of no such login, or of no such user any more.
      if (!(e instanceof ServerError && ["unauthenticated", "forbidden"].includes(e.code))) return;
    }
    keep.set(key, null);
  }
}

/**
 * Tokens that were kept `at` a time: a session counts their age from its own beginning, so what is left is said instead.
 * @param {any} t
 */
export function aged(t) {
  const left = t.at ? Math.max(-1, t.expires_in - (Date.now() - t.at) / 1000) : -1;
  return { ...t, expires_in: left || -1 };
}

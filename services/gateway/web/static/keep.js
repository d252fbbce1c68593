// @ts-check
// What this browser keeps: tokens, drafts, what waits to be sent, open conversations. Where storage is blocked, it lives as long as
// the page.
/** @type {Map<string, string>} */
const memory = new Map();

/** @type {Storage | null} */
let disk = null;
try {
  disk = localStorage;
} catch {
  // blocked
}

const PREFIX = "parley.";

export const keep = {
  /** @param {string} key */
  get(key) {
    return (disk ? disk.getItem(PREFIX + key) : memory.get(key)) ?? null;
  },
  /**
   * @param {string} key
   * @param {string | null} value null and "" remove it
   */
  set(key, value) {
    if (!value) {
      disk?.removeItem(PREFIX + key);
      memory.delete(key);
      return;
    }
    try {
      if (disk) disk.setItem(PREFIX + key, value);
      else memory.set(key, value);
    } catch {
      memory.set(key, value); // full: it is not worth an error to the writer
    }
  },
  /**
   * @param {string} key
   * @returns {any}
   */
  json(key) {
    try {
      return JSON.parse(this.get(key) ?? "null");
    } catch {
      return null;
    }
  },
  /** @param {string} begin */
  keys(begin) {
    const all = disk ? Object.keys(disk).filter((k) => k.startsWith(PREFIX)).map((k) => k.slice(PREFIX.length)) : [...memory.keys()];
    return all.filter((k) => k.startsWith(begin));
  },
  /** Forgets everything but the theme and the logins that have yet to end at the server. */
  clear() {
    for (const k of this.keys("")) if (k !== "theme" && !k.startsWith("leaving.")) this.set(k, null);
  },
};

/** The tokens of the login, shared by the tabs of this browser: only one of them renews at a time. */
export const tokenStore = {
  load: () => keep.json("tokens"),
  /** @param {any} t */
  save: (t) => keep.set("tokens", JSON.stringify({ ...t, at: Date.now() })),
  /** @param {() => Promise<void>} f */
  lock: async (f) => {
    // Browsers have locks on secure origins only.
    await (navigator.locks ? navigator.locks.request("parley.tokens", f) : f());
  },
};

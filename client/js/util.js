// @ts-check
/** An id for a message: 128 random bits. */
export function newId() {
  // Not crypto.randomUUID, which browsers have on secure origins only.
  const b = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(b, (x) => x.toString(16).padStart(2, "0")).join("");
}

/**
 * Resolves after ms; rejects when signal aborts.
 * @param {number} ms
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
export function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const timer = setTimeout(done, ms);
    function done() {
      signal?.removeEventListener("abort", stop);
      resolve();
    }
    function stop() {
      clearTimeout(timer);
      reject(signal?.reason);
    }
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/**
 * A promise that is settled from outside.
 * @template T
 */
export class Deferred {
  constructor() {
    /** @type {(v: T) => void} */
    this.resolve = () => {};
    /** @type {(e: unknown) => void} */
    this.reject = () => {};
    /** @type {Promise<T>} */
    this.promise = new Promise((a, b) => {
      this.resolve = a;
      this.reject = b;
    });
    this.promise.catch(() => {}); // who does not wait need not handle it
  }
}

/**
 * The first of a promise and an abort.
 * @template T
 * @param {Promise<T>} p
 * @param {AbortSignal} [signal]
 * @returns {Promise<T>}
 */
export function orAbort(p, signal) {
  if (!signal) return p;
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const stop = () => reject(signal.reason);
    signal.addEventListener("abort", stop, { once: true });
    p.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}

/**
 * A signal that aborts with the first of these, or after ms.
 * @param {number} ms
 * @param {AbortSignal} [signal]
 */
export function within(ms, signal) {
  const t = AbortSignal.timeout(ms);
  return signal ? AbortSignal.any([t, signal]) : t;
}

// @ts-check
// The codes after which the same request may be taken later, without anybody changing it: those of Code.Temporary in client/wire/codes.go.
const TEMPORARY = ["too_many_connections", "rate_limited", "unavailable", "internal"];

/** What the server refused, over HTTP or on the socket. `code` is stable, `message` is for people. */
export class ServerError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {number} [retryAfter] milliseconds
   */
  constructor(code, message, retryAfter = 0) {
    super(message || code);
    this.name = "ServerError";
    this.code = code;
    this.retryAfter = retryAfter;
  }

  /** Whether the same request may be taken later, without anybody changing it. */
  get temporary() {
    return TEMPORARY.includes(this.code);
  }
}

/** How a socket was closed. */
export class CloseError extends Error {
  /**
   * @param {number} code
   * @param {string} reason
   */
  constructor(code, reason) {
    super(`the connection was closed: ${code} ${reason}`);
    this.name = "CloseError";
    this.code = code;
    this.reason = reason;
  }
}

/** There is no connection at the moment. What raises it is not kept. */
export class NotConnectedError extends Error {
  constructor(message = "not connected at the moment") {
    super(message);
    this.name = "NotConnectedError";
  }
}

/** A message went out, and nobody knows whether it was stored. Send it again with the same id and `retry: true` to find out. */
export class OutcomeUnknownError extends Error {
  /**
   * @param {string} id
   * @param {unknown} cause
   */
  constructor(id, cause) {
    super(`message ${id} has no known outcome`, { cause });
    this.name = "OutcomeUnknownError";
    this.id = id;
  }
}

/**
 * The protocol's rule for every close code, also for those that only a network gives.
 * @param {number} code
 */
export function shouldReconnect(code) {
  return [1001, 1005, 1006, 1011, 1012, 1013].includes(code) || (code >= 4000 && code <= 4499);
}

/**
 * Whether a fresh token may mend this.
 * @param {unknown} e
 */
export function isRefusedToken(e) {
  return (e instanceof CloseError && (e.code === 4500 || e.code === 4501)) || isCode(e, "unauthenticated");
}

/**
 * @param {unknown} e
 * @param {string} code
 */
export function isCode(e, code) {
  return e instanceof ServerError && e.code === code;
}

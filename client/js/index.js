// @ts-check
// The JavaScript SDK of Parley: HTTP calls, and a connection that stays up by itself. README.md beside this file has examples.
export { Parley, Session, roomOf, peerOf } from "./api.js";
export { Connection } from "./connection.js";
export { ServerError, CloseError, NotConnectedError, OutcomeUnknownError, shouldReconnect } from "./errors.js";
export { newId } from "./util.js";

/**
 * @typedef {import("./api.js").Tokens} Tokens
 * @typedef {import("./api.js").TokenStore} TokenStore
 * @typedef {import("./api.js").Message} Message
 * @typedef {import("./api.js").Contact} Contact
 * @typedef {import("./api.js").Conversation} Conversation
 * @typedef {import("./connection.js").Accepted} Accepted
 * @typedef {import("./connection.js").ConnectOptions} ConnectOptions
 * @typedef {import("./connection.js").Events} Events
 */

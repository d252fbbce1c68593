// @ts-check
// The JavaScript SDK of Parley: HTTP calls, and a connection that stays up by itself. README.md beside this file has examples.
export { Parley, Session, roomOf, peerOf } from "./api.js";
export { Connection } from "./connection.js";
export { ServerError, CloseError, NotConnectedError, OutcomeUnknownError, shouldReconnect } from "./errors.js";
export { newId } from "./util.js";

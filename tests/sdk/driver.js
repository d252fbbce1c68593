// @ts-check
// Lets the judge of tests/sdk use the JavaScript SDK: commands come as lines of JSON, what happens goes out as such. docs/sdk.md has the
// vocabulary, which is the same for every language. `--fault NAME` makes it an SDK with a mistake, which the judge has to find.
import { createInterface } from "node:readline";
import { CloseError, OutcomeUnknownError, Parley, ServerError } from "../../client/js/index.js";
import NodeWebSocket from "../../client/js/node-websocket.js";
import { faulty } from "./faults.js";

const fault = faulty(process.argv[3]);

/** @param {string} is @param {any} [e] */
function say(is, e) {
  for (const out of fault.out({ is, ...e })) process.stdout.write(JSON.stringify(out) + "\n");
}

/** An error in the vocabulary: a code of the protocol, a close code, or a word of its own. @param {any} e */
function why(e) {
  if (e instanceof OutcomeUnknownError) return "outcome_unknown";
  if (e instanceof ServerError) return e.code;
  if (e instanceof CloseError) return String(e.code);
  if (e?.name === "NotConnectedError") return "not_connected";
  return String(e);
}

class WebSocket extends NodeWebSocket {
  /** @param {string} text */
  send(text) {
    for (const f of fault.up(JSON.parse(text))) super.send(JSON.stringify(f));
  }

  /** @param {string} url @param {string[]} protocols */
  constructor(url, protocols) {
    super(url, protocols);
    /** @type {any} */
    let hear = null;
    const heard = (/** @type {{data: string}} */ e) => {
      let f;
      try {
        f = JSON.parse(e.data);
      } catch {
        return hear?.(e);
      }
      for (const x of fault.down(f)) hear?.({ data: JSON.stringify(x) });
    };
    Object.defineProperty(this, "onmessage", { set: (f) => (hear = f), get: () => hear && heard });
  }
}

/** @type {import("../../client/js/connection.js").Connection} */
let connection;
let ending = false;
/** @type {Map<string, AbortController>} */
const sends = new Map();

/** @param {any} c */
function connect(c) {
  const session = new Parley(c.url).session({ access_token: c.token, refresh_token: c.refresh_token, expires_in: c.expires_in });
  connection = session.connect({
    rooms: c.rooms, device: c.device, resume: c.resume, minBackoff: c.min_backoff_ms, maxBackoff: c.max_backoff_ms, answerTimeout: c.answer_timeout_ms,
    WebSocket: /** @type {any} */ (WebSocket),
  });
  const on = connection.on.bind(connection);
  on("message", (m) => say("message", { room: m.conversation_room, sender: m.sender, content: m.content, id: m.id, seq: m.seq, late: m.late || undefined }));
  on("caughtUp", (e) => say("caught_up", { resume: e.resume }));
  on("presence", (e) => say("presence", { online: e.online }));
  on("typing", (e) => say("typing", e));
  on("read", (e) => say("read", e));
  on("delivered", (e) => say("delivered", e));
  on("contact", (e) => say("contact", e));
  on("notJoined", (e) => say("not_joined", e));
  on("refused", (e) => say("refused", { code: e.error.code }));
  on("disconnected", () => say("disconnected"));
  on("connected", () => say("connected"));
  on("closed", (e) => say("closed", { why: ending ? "closed" : why(e.error) }));
}

/** @param {any} c */
async function act(c) {
  switch (c.do) {
    case "connect":
      return connect(c);
    case "send": {
      const stop = new AbortController();
      sends.set(c.id, stop);
      try {
        const acc = await connection.send(c.room, c.content, { id: c.id, retry: c.retry, signal: stop.signal });
        say("sent", { content: c.content, room: acc.room, id: acc.id, seq: acc.seq });
      } catch (e) {
        say("unsent", { content: c.content, why: why(e) });
      }
      return;
    }
    case "give_up":
      return sends.get(c.id)?.abort();
    case "resume":
      return say("resume", { token: connection.resume });
    case "close":
      ending = true;
      return void connection.close();
  }
  try {
    if (c.do === "typing") connection.typing(c.room);
    else if (c.do === "read") connection.read(c.room, c.seq);
    else if (c.do === "watch") connection.watch(c.usernames);
  } catch (e) {
    say("failed", { why: why(e) });
  }
}

for await (const line of createInterface({ input: process.stdin })) void act(JSON.parse(line));
process.exit(0);

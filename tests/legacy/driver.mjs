// Old clients in JavaScript: socket.io-client, driven over standard input and output. The lines are those of driver.py, which
// describes them.

import { createInterface } from "node:readline";
import { io } from "socket.io-client";

const EVENTS = ["received_message", "new_user_online", "user_has_gone_offline", "ai_response_received", "error"];

const base = process.argv[2];
const clients = new Map();

const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");

function listen(client, as) {
  for (const name of EVENTS) client.socket.on(name, (...args) => say({ as, name, args }));
}

const actions = {
  async http({ id, method, path, headers, body, raw }) {
    const options = { method, headers: { ...headers }, body: raw };
    if (body !== undefined) {
      options.body = JSON.stringify(body);
      options.headers["Content-Type"] = "application/json";
    }
    const answer = await fetch(base + path, options);
    say({ id, status: answer.status, type: answer.headers.get("content-type") ?? "", text: await answer.text() });
  },

  connect({ id, as, transports, late }) {
    const options = { forceNew: true };
    if (transports) options.transports = transports;
    const socket = io(base, options);
    const client = { socket, alive: undefined };
    clients.set(as, client);
    // Before its transport is up, a manager has no engine; "open" comes before the first packet of Socket.IO.
    socket.io.on("open", () => {
      socket.io.engine.on("packet", ({ type, data }) => {
        if (type === "message" && typeof data === "string") say({ as, packet: data });
      });
    });
    socket.on("disconnect", () => say({ as, name: "disconnect", args: [] }));
    if (!late) listen(client, as);
    let answered = false;
    const answer = (line) => {
      if (!answered) say({ id, ...line });
      answered = true;
    };
    socket.on("connect", () => answer({}));
    socket.on("connect_error", (e) => answer({ error: e.message }));
  },

  handlers({ id, as }) {
    listen(clients.get(as), as);
    say({ id });
  },

  emit({ id, as, name, data, ack }) {
    const { socket } = clients.get(as);
    if (ack) {
      socket.emit(name, data, (...args) => say({ id, args }));
      return;
    }
    socket.emit(name, data);
    say({ id });
  },

  alive({ id, as, name, every }) {
    const client = clients.get(as);
    clearInterval(client.alive);
    if (every) client.alive = setInterval(() => client.socket.emit("connection_alive", { client: name }), every * 1000);
    say({ id });
  },

  transport({ id, as }) {
    say({ id, text: clients.get(as).socket.io.engine.transport.name });
  },

  disconnect({ id, as }) {
    const client = clients.get(as);
    clearInterval(client.alive);
    client.socket.disconnect();
    say({ id });
  },
};

const lines = createInterface({ input: process.stdin });
lines.on("line", async (line) => {
  const command = JSON.parse(line);
  try {
    await actions[command.do](command);
  } catch (e) {
    say({ id: command.id, error: String(e) });
  }
});
lines.on("close", () => process.exit(0));
say({ ready: true });

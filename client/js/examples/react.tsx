// A room as a component. The connection outlives it: make one for the login, and give it to every room that is shown.
import { useEffect, useState } from "react";
import { peerOf, type Connection, type Message } from "parley-client";

/** The messages of a room from the last fifty on, oldest first, each once; and what sends one more. */
export function useRoom(connection: Connection, room: string): [Message[], (content: string) => Promise<void>] {
  const [all, setAll] = useState<Message[]>([]);
  const add = (more: Message[]) =>
    setAll((have) => [...new Map([...have, ...more].map((m) => [`${m.conversation_room} ${m.seq}`, m])).values()].sort((a, b) => a.seq - b.seq));
  useEffect(() => {
    const gone = new AbortController();
    connection.on("message", (m) => add([m]), { signal: gone.signal });
    const load = async () => add((await connection.session.messages(room, { limit: 50, signal: gone.signal })).messages);
    load().catch((e: unknown) => gone.signal.aborted || console.error(e));
    return () => gone.abort();
  }, [connection, room]);
  const send = async (content: string) => {
    const { id, seq, sentAt } = await connection.send(room, content); // stored; the server does not send one's own message back
    add([{ sender: connection.session.username, content, conversation_room: room, id, seq, sent_at: sentAt }]);
  };
  return [all.filter((m) => m.conversation_room === room), send];
}

export function Room({ connection, room }: { connection: Connection; room: string }) {
  const [messages, send] = useRoom(connection, room);
  const peer = peerOf(room, connection.session.username);
  return (
    <section aria-label={peer}>
      <ol>
        {messages.map((m) => (
          <li key={m.seq}>
            <b>{m.sender}</b> {m.content}
          </li>
        ))}
      </ol>
      <form
        onSubmit={(e) => {
          e.preventDefault();
          const input = e.currentTarget.elements.namedItem("text");
          if (!(input instanceof HTMLInputElement) || !input.value) return;
          send(input.value).catch(console.error);
          input.value = "";
        }}
      >
        <input name="text" aria-label={`to ${peer}`} />
      </form>
    </section>
  );
}

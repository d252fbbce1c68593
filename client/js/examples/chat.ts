// Says one thing to Avi and prints what comes, until the connection ends for good.
import { OutcomeUnknownError, Parley, roomOf, type Message } from "parley-client";

export async function chat(url: string, username: string, password: string): Promise<void> {
  const session = await new Parley(url).login(username, password);
  const connection = session.connect();
  connection.on("message", (m: Message) => console.log(`${m.sent_at} ${m.sender}: ${m.content}`));
  connection.on("presence", ({ online, unknown }) => console.log(unknown ? "nobody knows who is online" : `online: ${online.join(", ")}`));
  const room = roomOf(session.username, "Avi");
  try {
    const { seq } = await connection.send(room, "hello", { signal: AbortSignal.timeout(30_000) });
    console.log("stored as number", seq);
  } catch (e) {
    if (!(e instanceof OutcomeUnknownError)) throw e;
    await connection.send(room, "hello", { id: e.id, retry: true }); // stored once, whatever became of the first
  }
  console.log("the end:", await connection.closed);
}

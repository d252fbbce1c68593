// @ts-check
// A join that is longer than a frame.

export const FRAME_BYTES = 64 << 10; // of a frame, where the server has not said

/** @param {unknown} v */
export const frameBytes = (v) => new TextEncoder().encode(JSON.stringify(v)).length;

const bytes = (/** @type {string} */ room) => frameBytes(room) + 1; // and a comma or a colon

/**
 * As many joins of one as it takes for each to fit into a frame. Places of since that do not fit are left out: there the server goes by what was confirmed.
 * @param {{rooms: string[] | "*", since?: Record<string, number>}} all
 * @param {string} id of the frames
 * @param {number} limit of a frame, in bytes
 */
export function splitJoin({ rooms, since = {}, ...rest }, id, limit) {
  const most = limit - frameBytes({ event: "join", data: { rooms: [], since: {}, ...rest }, id });
  const place = (/** @type {string} */ room) => (Object.hasOwn(since, room) ? bytes(room) + 17 : 0); // and a seq
  /** @type {any[]} */
  const parts = [];
  /** @type {any} */
  let part;
  let used = 0;
  const begin = (/** @type {string[] | "*"} */ list) => {
    parts.push((part = { ...rest, rooms: list }));
    used = 0;
  };
  const add = (/** @type {string} */ room) => {
    if (!place(room) || used + place(room) > most) return;
    (part.since ??= {})[room] = since[room];
    used += place(room);
  };
  begin(rooms === "*" ? rooms : []);
  if (rooms === "*") for (const room of Object.keys(since)) add(room);
  else
    for (const room of rooms) {
      if (used + bytes(room) + place(room) > most && part.rooms.length) begin([]);
      part.rooms.push(room);
      used += bytes(room);
      add(room);
    }
  return parts;
}

// @ts-check
// A join that is longer than a frame.

export const FRAME_BYTES = 64 << 10; // of a frame, where the server has not said

/** @param {unknown} v */
export const frameBytes = (v) => new TextEncoder().encode(JSON.stringify(v)).length;

/**
 * As many joins of one as it takes for each to fit into a frame.
 * @param {{rooms: string[] | "*", device?: string, resume?: string}} all
 * @param {string} id of the frames
 * @param {number} limit of a frame, in bytes
 */
export function splitJoin({ rooms, ...rest }, id, limit) {
  if (rooms === "*") return [{ rooms, ...rest }];
  const most = limit - frameBytes({ event: "join", data: { rooms: [], ...rest }, id });
  let used = 0, part = /** @type {string[]} */ ([]);
  const parts = [{ rooms: part, ...rest }];
  for (const room of rooms) {
    const need = frameBytes(room) + 1; // and a comma
    if (used + need > most && part.length) {
      parts.push({ rooms: (part = []), ...rest });
      used = 0;
    }
    part.push(room);
    used += need;
  }
  return parts;
}

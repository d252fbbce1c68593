// @ts-check
// Mistakes that an SDK could have. Each filter gives the frames or events that take the place of one.
/** @typedef {{up: (f: any) => any[], down: (f: any) => any[], out: (e: any) => any[]}} Filters */

/** @type {Record<string, () => Partial<Filters>>} */
const faults = {
  "joins without the token": () => ({ up: (f) => [f.event === "join" ? { ...f, data: { ...f.data, resume: undefined } } : f] }),
  "keeps the oldest token": () => {
    let first = "";
    return { down: (f) => ((first ||= f.data?.resume ?? ""), [f]), up: (f) => [f.event === "join" && first ? { ...f, data: { ...f.data, resume: first } } : f] };
  },
  "hands on twins": () => {
    const seen = new Set();
    return {
      down: (f) => {
        const { seq } = f.data ?? {};
        if (f.event !== "received_message" || !seen.has(seq)) return seen.add(seq), [f];
        return [{ ...f, data: { ...f.data, seq: seq + 0.5 } }];
      },
    };
  },
  "hides what is late": () => ({ out: (e) => [{ ...e, late: undefined }] }),
  "drops what is late": () => ({ out: (e) => (e.late ? [] : [e]) }),
  "holds back until it is in order": () => {
    /** @type {any[]} */
    let held = [];
    return {
      down: (f) => {
        if (f.event !== "received_message") return [f];
        held.push(f);
        if (held.length < 2) return [];
        const out = held.sort((a, b) => a.data.seq - b.data.seq);
        held = [];
        return out;
      },
    };
  },
  "tells of one's own": () => ({
    out: (e) => (e.is === "sent" ? [{ is: "message", room: e.room, sender: "lisa", content: e.content, id: e.id, seq: e.seq }, e] : [e]),
  }),
  "sends again as if it were the first time": () => ({ up: (f) => [f.event === "client_sends_message" ? { ...f, data: { ...f.data, retry: undefined } } : f] }),
  "sends again under another id": () => {
    let n = 0;
    return { up: (f) => [f.event === "client_sends_message" ? { ...f, data: { ...f.data, id: f.data.id + n++ } } : f] };
  },
  "forgets whom it watches": () => {
    let n = 0;
    return { up: (f) => (f.event === "watch_presence" && n++ ? [] : [f]) };
  },
  "leaves without a good-bye": () => ({ up: (f) => (f.event === "client_disconnection" ? [{ event: "bye" }] : [f]) }),
  "takes a send for unknown": () => ({ out: (e) => [e.is === "unsent" ? { ...e, why: "outcome_unknown" } : e] }),
};

/** @param {string | undefined} name @returns {Filters} */
export function faulty(name) {
  const pass = (/** @type {any} */ x) => [x];
  if (name !== undefined && !faults[name]) throw new Error(`there is no fault ${name}`);
  return { up: pass, down: pass, out: pass, ...(name === undefined ? {} : faults[name]()) };
}

// @ts-check
// Small things that several views draw.
import { html } from "./html.js";

const PATHS = {
  search: "M11 4a7 7 0 1 0 4.2 12.6l4.1 4.1 1.4-1.4-4.1-4.1A7 7 0 0 0 11 4Zm0 2a5 5 0 1 1 0 10 5 5 0 0 1 0-10Z",
  close: "m6.4 5 5.6 5.6L17.6 5 19 6.4 13.4 12l5.6 5.6-1.4 1.4-5.6-5.6L6.4 19 5 17.6l5.6-5.6L5 6.4Z",
  back: "m14.5 5 1.4 1.4L10.3 12l5.6 5.6-1.4 1.4-7-7Z",
  send: "M3.4 20.4 21.5 12 3.4 3.6 3.4 10l11 2-11 2Z",
  down: "m12 15.5-6.5-6.5L7 7.6l5 5 5-5 1.5 1.4Z",
  bell: "M12 3a6 6 0 0 0-6 6v4l-2 3v1h16v-1l-2-3V9a6 6 0 0 0-6-6Zm-2 15a2 2 0 0 0 4 0Z",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8Zm-1-6h2v3h-2Zm0 17h2v3h-2ZM2 11h3v2H2Zm17 0h3v2h-3ZM4.2 5.6l1.4-1.4 2.1 2.1-1.4 1.4Zm12.1 12.1 1.4-1.4 2.1 2.1-1.4 1.4ZM4.2 18.4l2.1-2.1 1.4 1.4-2.1 2.1ZM16.3 6.3l2.1-2.1 1.4 1.4-2.1 2.1Z",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5Z",
  auto: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18Zm0 2v14a7 7 0 1 1 0-14Z",
  out: "M4 4h8v2H6v12h6v2H4Zm11.6 3.6L20 12l-4.4 4.4-1.4-1.4 2-2H9v-2h7.2l-2-2Z",
  help: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18Zm0 2a7 7 0 1 1 0 14 7 7 0 0 1 0-14Zm-1 10h2v2h-2Zm1-8a3.2 3.2 0 0 0-3.2 3h2a1.2 1.2 0 1 1 1.9 1c-1 .7-1.7 1.4-1.7 2.8h2c0-.6.4-.9 1-1.4A3.1 3.1 0 0 0 12 7Z",
};

/** @param {{name: keyof typeof PATHS}} p */
export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false"><path d=${PATHS[name]} /></svg>`;
}

const TICKS = {
  waiting: ["Waiting to be sent", "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2Zm0 1.5a4.5 4.5 0 1 1 0 9 4.5 4.5 0 0 1 0-9ZM7.3 5h1.4v2.8l2 1.2-.7 1.1-2.7-1.6Z"],
  failed: ["Not sent", "M8 1.5 15 14H1Zm-.8 4.6.2 4.2h1.2l.2-4.2ZM7.3 11h1.4v1.4H7.3Z"],
  accepted: ["Sent", "m6 10.6 6.4-6.9 1.1 1-7.4 8.1L2.5 9.2l1.1-1Z"],
  delivered: ["Delivered", "m4.2 10.6 6.4-6.9 1.1 1-7.4 8.1L.7 9.2l1.1-1Zm5 0 6.4-6.9.9.9-7.3 8.2-1.3-1.3 1-1Z"],
  read: ["Read", "m4.2 10.6 6.4-6.9 1.1 1-7.4 8.1L.7 9.2l1.1-1Zm5 0 6.4-6.9.9.9-7.3 8.2-1.3-1.3 1-1Z"],
};

/** What has become of a message: shape, colour and words. @param {{state: keyof typeof TICKS}} p */
export function Tick({ state }) {
  const [label, path] = TICKS[state];
  return html`<span class=${"tick " + state} data-state=${state}>
    <svg viewBox="0 0 17 16" aria-hidden="true" focusable="false"><path d=${path} /></svg><span class="sr">${label}</span>
  </span>`;
}

/** @param {string} name */
function hue(name) {
  let n = 0;
  for (let i = 0; i < name.length; i++) n = (n * 31 + name.charCodeAt(i)) >>> 0;
  return n % 8;
}

/** @param {{name: string, online?: boolean | null}} p */
export function Avatar({ name, online }) {
  const first = [...new Intl.Segmenter().segment(name)][0]?.segment ?? "?";
  return html`<span class=${"avatar hue" + hue(name)} aria-hidden="true">
    <bdi>${first.toLocaleUpperCase()}</bdi>
    ${online !== undefined && html`<span class=${"dot " + (online ? "on" : online === null ? "unknown" : "off")}></span>`}
  </span>`;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const weekday = new Intl.DateTimeFormat(undefined, { weekday: "long" });
const shortDay = new Intl.DateTimeFormat(undefined, { weekday: "short" });
const date = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const longDate = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long", year: "numeric" });
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

/** @param {number} at */
export const time = (at) => clock.format(at);

// A day by a number that two times of it share; toDateString and formatters are too slow for ten thousands of messages.
let offsetAt = 0, offset = 0;
/** @param {number} at */
export function dayOf(at) {
  // The offset of a time zone changes at an hour's edge at the most.
  const hour = Math.floor(at / 900_000);
  if (hour !== offsetAt) {
    offsetAt = hour;
    offset = new Date(at).getTimezoneOffset() * 60_000;
  }
  return Math.floor((at - offset) / 86_400_000);
}

/** How many days before today. @param {number} at */
const daysAgo = (at) => dayOf(Date.now()) - dayOf(at);

/** @param {number} at */
export function dayName(at) {
  const ago = daysAgo(at);
  if (ago === 0 || ago === 1) return capital(relative.format(-ago, "day"));
  return ago > 1 && ago < 7 ? weekday.format(at) : longDate.format(at);
}

/** When, as short as a list has room for. @param {number} at */
export function when(at) {
  if (!at) return "";
  const ago = daysAgo(at);
  return ago <= 0 ? time(at) : ago < 7 ? shortDay.format(at) : date.format(at);
}

/** @param {{online: boolean | null, lastSeen: number}} p */
export function presence(p) {
  if (p.online) return "online";
  if (p.online === null) return "";
  if (!p.lastSeen) return "offline";
  const min = Math.round((Date.now() - p.lastSeen) / 60_000);
  if (min < 1) return "last seen just now";
  if (min < 60) return "last seen " + relative.format(-min, "minute");
  if (daysAgo(p.lastSeen) === 0) return "last seen " + relative.format(-Math.round(min / 60), "hour");
  return "last seen " + (daysAgo(p.lastSeen) === 1 ? relative.format(-1, "day") : date.format(p.lastSeen)) + ", " + time(p.lastSeen);
}

/** @param {string} s */
const capital = (s) => s.charAt(0).toLocaleUpperCase() + s.slice(1);

// @ts-check
// Measures scrolling and memory of the web client: 10,000 contacts, and a conversation of 50,000 messages. `make bench-web`.
// The messages are real. The contacts are given to the page in place of the server's answer: to register 10,000 users takes minutes of
// password hashing, and the page cannot tell the difference.
import { readFileSync } from "node:fs";
import { roomOf } from "../../client/js/index.js";
import { serve } from "./serve.js";

const CONTACTS = 10_000;
const MESSAGES = Number(process.env.MESSAGES ?? 50_000);

const { url, stop } = await serve();
process.env.PARLEY_URL = url;
const { PASSWORD, user } = await import("./lib.js");
const { launch, page } = await import("./chromium.js");

const lisa = await user("Lisa"), avi = await user("Avi");
const room = roomOf(lisa.name, avi.name);
const sender = avi.session.connect();
console.error(`sending ${MESSAGES} messages`);
for (let i = 0; i < MESSAGES; i += 200) {
  await Promise.all(Array.from({ length: Math.min(200, MESSAGES - i) }, (_, k) => sender.send(room, `Message ${i + k}. ${"Some more words to fill it. ".repeat((i + k) % 7)}`.trim())));
}
await sender.close();

const browser = await launch();
const p = await page(browser);
await p.addInitScript(() => {
  /** @type {any} */ (window).tasks = [];
  new PerformanceObserver((l) => { for (const e of l.getEntries()) /** @type {any} */ (window).tasks.push(Math.round(e.duration)); }).observe({ type: "longtask", buffered: true });
});
await p.route("**/v1/contacts?*", (route) => {
  const at = Number(new URL(route.request().url()).searchParams.get("after") || 0);
  const contacts = Array.from({ length: 1000 }, (_, i) => {
    const name = `contact-${String(at + i).padStart(5, "0")}`;
    return { username: name, room: roomOf(lisa.name, name), online: (at + i) % 3 === 0, last_seen: (at + i) % 3 ? "2026-03-01T09:30:00.000Z" : undefined };
  });
  const next = at + 1000 < CONTACTS ? String(at + 1000) : undefined;
  return route.fulfill({ json: { contacts, next } });
});
const cdp = await p.context().newCDPSession(p);
const whole = await browser.newBrowserCDPSession();

/** @type {string[]} */
const rows = [];

/** What one passage cost. @param {string} what @param {() => Promise<string>} f */
async function measure(what, f) {
  await p.evaluate(() => {
    const w = /** @type {any} */ (window);
    w.tasks = [];
    w.gaps = [];
    w.running = true;
    let last = performance.now();
    requestAnimationFrame(function tick(now) {
      w.gaps.push(now - last);
      last = now;
      if (w.running) requestAnimationFrame(tick);
    });
  });
  const note = await f();
  const { tasks, frames } = await p.evaluate(() => {
    const w = /** @type {any} */ (window);
    w.running = false;
    return { tasks: /** @type {number[]} */ (w.tasks), frames: /** @type {number[]} */ (w.gaps ?? []).sort((a, b) => a - b) };
  });
  await cdp.send("HeapProfiler.collectGarbage");
  const heap = (await cdp.send("Runtime.getHeapUsage")).usedSize;
  const nodes = await p.evaluate(() => document.querySelectorAll("*").length);
  const at = (/** @type {number} */ q) => (frames.length ? Math.round(frames[Math.min(frames.length - 1, Math.floor(frames.length * q))]) : "–");
  rows.push(`| ${what} | ${note} | ${tasks.length} | ${tasks.length ? Math.max(...tasks) : 0} ms | ${at(0.5)} / ${at(0.99)} ms | ${(heap / 1e6).toFixed(1)} MB | ${(await resident() / 1e6).toFixed(0)} MB | ${nodes} |`);
  console.error(rows.at(-1));
}

/** Resident memory of the page's process. */
async function resident() {
  const { processInfo } = await whole.send("SystemInfo.getProcessInfo");
  const sizes = processInfo.filter((x) => x.type === "renderer").map((x) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${x.id}/status`, "utf8"))?.[1]) * 1024);
  return Math.max(...sizes);
}

/**
 * Scrolls by a step a frame until there is no more way to go.
 * @param {string} selector
 * @param {number} step px
 */
const scroll = (selector, step) => p.evaluate(async ({ selector, step }) => {
  const el = /** @type {HTMLElement} */ (document.querySelector(selector));
  const frame = () => new Promise((r) => requestAnimationFrame(r));
  let frames = 0;
  for (let idle = 0; idle < 30; frames++) { // where more is loading, the end is not the end
    const before = el.scrollTop;
    el.scrollTop += step;
    await frame();
    idle = el.scrollTop === before && !(step < 0 && document.querySelector(`${selector} .note`)?.textContent?.startsWith("Loading")) ? idle + 1 : 0;
  }
  return frames;
}, { selector, step });

await measure("start: log in, contacts, first conversation", async () => {
  await p.goto(url);
  await p.getByLabel("Name").fill(lisa.name);
  await p.getByLabel("Password").fill(PASSWORD);
  await p.getByRole("button", { name: "Log in" }).click();
  await p.locator(`.contact[aria-setsize="${CONTACTS + 1}"]`).first().waitFor({ timeout: 60_000 }).catch(() => {});
  await p.locator(".contact").first().click();
  await p.locator(".line").first().waitFor({ timeout: 60_000 });
  return `${await p.locator(".contact").first().getAttribute("aria-setsize")} contacts`;
});
await measure("contacts, top to bottom", async () => `${await scroll(".contacts", 400)} frames of 400 px`);
await measure("contacts, search as one types", async () => {
  await p.getByLabel("Search contacts").pressSequentially("contact-09", { delay: 30 });
  await p.locator('.contact[aria-setsize="1000"]').first().waitFor();
  await p.getByLabel("Search contacts").fill("");
  return "10 keys";
});
await measure("messages, end to beginning, loading", async () => `${await scroll(".log", -1000)} frames of 1,000 px`);
await measure("messages, beginning to end", async () => `${await scroll(".log", 4000)} frames of 4,000 px`);
await measure("messages, jumps to anywhere", async () => {
  await p.evaluate(async () => {
    const el = /** @type {HTMLElement} */ (document.querySelector(".log"));
    for (let i = 0; i < 200; i++) {
      el.scrollTop = -((i * 7919) % 1000) / 1000 * el.scrollHeight;
      await new Promise((r) => requestAnimationFrame(r));
    }
  });
  return "200 jumps";
});
await browser.close();
await stop();
console.log(`| passage | how far | tasks over 50 ms | longest | frame p50 / p99 | heap after | resident | elements |\n|---|---|---|---|---|---|---|---|\n${rows.join("\n")}`);

// @ts-check
// The web client among more people than everybody is told of: what it shows of those on the screen is the truth.
import { after, afterEach, before, test } from "node:test";
import { control, eventually, user } from "./lib.js";
import { arrive, launch, noComplaints } from "./chromium.js";

/** @type {import("playwright-core").Browser} */
let browser;
before(async () => void (browser = await launch()));
after(() => browser.close());
afterEach(async () => {
  noComplaints();
  for (const c of browser.contexts()) await c.close();
});

/** Those in sight, and what their dots say. @param {import("playwright-core").Page} p @returns {Promise<[string, string][]>} */
const screen = (p) =>
  p.locator(".contact").evaluateAll((rows) => rows.map((r) => /** @type {[string, string]} */ ([r.querySelector(".who bdi")?.textContent ?? "", r.querySelector(".dot")?.className ?? ""])));

test("3,000 people: presence on the screen is the truth", { timeout: 240_000 }, async () => {
  const p = await arrive(browser, await user("Viewer"));
  /** @type {Set<string>} */
  const there = new Set();
  const truth = () =>
    eventually("presence is the truth", async () => {
      const rows = await screen(p);
      return rows.length > 5 && rows.every(([name, dot]) => dot === `dot ${there.has(name) ? "on" : "off"}`);
    });
  await p.locator('.contact[aria-setsize="3000"]').first().waitFor();
  await truth();
  for (const row of [0, 1500, 2990, 700]) {
    await p.locator(".contacts").evaluate((box, y) => (box.scrollTop = y), row * 68);
    await p.locator(`#c${row}`).waitFor();
    await truth();
    const names = (await screen(p)).map(([name]) => name).filter((_, i) => i % 3 === 0);
    for (const name of names) {
      await control(`/come/${name}`);
      there.add(name);
    }
    await truth();
    await control(`/leave/${names[0]}`);
    there.delete(names[0]);
    await truth();
  }
  await p.locator(".contacts").evaluate((box) => (box.scrollTop = 0)); // who came is still there
  await p.locator("#c0").waitFor();
  await truth();
});

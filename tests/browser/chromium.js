// @ts-check
// Real Chromium, as Debian has it, and people in front of it.
import assert from "node:assert/strict";
import { chromium } from "playwright-core";
import { PASSWORD, url } from "./lib.js";

const ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** @typedef {import("playwright-core").Page} Page */

/** A browser of its own, with an empty profile. @param {string[]} [more] */
export const launch = (more = []) => chromium.launch({ executablePath, args: [...ARGS, ...more] });

/** A browser that can be killed like a machine that loses its power. */
export async function mortal() {
  const server = await chromium.launchServer({ executablePath, args: ARGS });
  return { browser: await chromium.connect(server.wsEndpoint()), kill: () => server.kill() };
}

/** What no page may do: break its policy, or fail. @type {string[]} */
export const complaints = [];

/**
 * A page of a context of its own.
 * @param {import("playwright-core").Browser} browser
 * @param {import("playwright-core").BrowserContextOptions} [options]
 */
export async function page(browser, options) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, locale: "en-GB", ...options });
  const p = await context.newPage();
  p.setDefaultTimeout(60_000); // nobody waits so long but on a machine that does much else
  watch(p);
  return p;
}

/**
 * A page of somebody who has logged in: a login costs more than most of these tests.
 * @param {import("playwright-core").Browser} browser
 * @param {{session: import("../../client/js/api.js").Session}} who
 * @param {import("playwright-core").BrowserContextOptions} [options]
 */
export async function arrive(browser, who, options) {
  const tokens = JSON.stringify({ ...who.session.tokens, at: Date.now() });
  const p = await page(browser, { storageState: { cookies: [], origins: [{ origin: url, localStorage: [{ name: "parley.tokens", value: tokens }] }] }, ...options });
  await p.goto(url);
  await p.getByRole("listbox", { name: "Contacts" }).waitFor();
  return p;
}

/** @param {Page} p */
export function watch(p) {
  p.on("pageerror", (e) => complaints.push(String(e.stack ?? e)));
  p.on("console", (m) => {
    // A server that is away is a case of these tests, and the browser reports it.
    if (m.type() === "error" && !/ERR_|WebSocket connection|status of (401|503)/.test(m.text())) complaints.push(m.text());
  });
}

/**
 * @param {Page} p
 * @param {string} name
 */
export async function login(p, name, password = PASSWORD) {
  await p.goto(url);
  await p.getByLabel("Name").fill(name);
  await p.getByLabel("Password").fill(password);
  await p.getByRole("button", { name: "Log in" }).click();
  await p.getByRole("listbox", { name: "Contacts" }).waitFor();
}

/**
 * @param {Page} p
 * @param {string} name
 */
export const contact = (p, name) => p.locator(".contact", { has: p.locator(".who bdi", { hasText: new RegExp(`^${name}$`) }) });

/**
 * @param {Page} p
 * @param {string} name
 */
export const pane = (p, name) => p.getByRole("region", { name: `Conversation with ${name}` });

/**
 * Opens a conversation through the search: the list may be long.
 * @param {Page} p
 * @param {string} name
 */
export async function open(p, name) {
  await p.getByLabel("Search contacts").fill(name);
  await contact(p, name).click();
  await pane(p, name).waitFor();
  await p.getByLabel("Search contacts").fill("");
}

/**
 * @param {Page} p
 * @param {string} to
 * @param {string} text
 */
export async function say(p, to, text) {
  const field = pane(p, to).getByRole("textbox");
  await field.fill(text);
  await field.press("Enter");
}

/** The texts of a conversation that are in the document. @param {Page} p @param {string} name */
export const texts = (p, name) => pane(p, name).locator(".text").allTextContents();

/** @param {Page} p @param {string} with_ @param {string} text */
export const bubble = (p, with_, text) => pane(p, with_).locator(".bubble", { has: p.getByText(text, { exact: true }) });

/** Fails with what pages have complained about so far. */
export function noComplaints() {
  assert.deepEqual(complaints.splice(0), []);
}

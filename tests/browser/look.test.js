// @ts-check
// The web client in a real browser: what it looks like and keeps, without a network, and after somebody was erased.
import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { roomOf } from "../../client/js/index.js";
import { control, eventually, url, user } from "./lib.js";
import { arrive, bubble, complaints, contact, launch, noComplaints, open, page, pane, say, texts } from "./chromium.js";

const timeout = 240_000; // of one test; each waits for events

/** @type {import("playwright-core").Browser} */
let browser;
before(async () => void (browser = await launch()));
after(() => browser.close());
afterEach(async () => {
  noComplaints();
  for (const c of browser.contexts()) await c.close();
});

test("the network is switched off and on: what was written meanwhile is sent, once and in order", { timeout }, async () => {
  const [lu, au, du] = [await user("Lisa"), await user("Avi"), await user("Dana")];
  const [lisa, avi, dana] = [lu.name, au.name, du.name];
  const [l, a] = await Promise.all([arrive(browser, lu), arrive(browser, au)]);
  await Promise.all([open(l, avi), open(a, lisa)]);
  await open(l, dana);
  await say(l, avi, "before");
  await bubble(a, lisa, "before").waitFor();
  await l.context().setOffline(true);
  await l.getByText("Offline. What you write is sent when you are back.").waitFor();
  for (const t of ["away 1", "away 2", "away 3"]) await say(l, avi, t);
  await say(l, dana, "to another one");
  await bubble(l, avi, "away 3").locator("[data-state=waiting]").waitFor();
  await pane(l, avi).getByRole("textbox").fill("not finished");
  await say(a, lisa, "are you there?");
  assert.deepEqual(await texts(a, lisa), ["before", "are you there?"], "nothing has come out");
  await l.context().setOffline(false);
  await bubble(a, lisa, "away 3").waitFor();
  await bubble(l, avi, "away 3").locator("[data-state=read]").waitFor();
  await bubble(l, dana, "to another one").locator("[data-state=accepted]").waitFor();
  await bubble(l, avi, "are you there?").waitFor();
  await l.locator(".status.up").waitFor({ state: "attached" });
  const want = ["before", "are you there?", "away 1", "away 2", "away 3"];
  assert.deepEqual(await texts(l, avi), want);
  assert.deepEqual(await texts(a, lisa), want);
  assert.equal(await pane(l, avi).getByRole("textbox").inputValue(), "not finished");
  const stored = await au.session.messages(roomOf(lisa, avi), { limit: 200 });
  assert.deepEqual(stored.messages.map((m) => m.content), want);
  assert.deepEqual((await du.session.messages(roomOf(lisa, dana), { limit: 200 })).messages.map((m) => m.content), ["to another one"]);
  assert.deepEqual(await l.evaluate(() => Object.keys(localStorage).filter((k) => k.startsWith("parley.out."))), [], "nothing waits any more");
});

test("an erased person's messages are shown as such, in the conversation and in the list", { timeout }, async () => {
  const [lu, au] = [await user("Lisa"), await user("Avi")];
  const room = roomOf(lu.name, au.name);
  const c = lu.session.connect();
  await c.send(room, "a secret");
  const a = await arrive(browser, au);
  await open(a, lu.name);
  await say(a, lu.name, "I keep this");
  await bubble(a, lu.name, "I keep this").locator("[data-state=accepted], [data-state=delivered]").waitFor();
  await c.send(room, "another secret");
  await bubble(a, lu.name, "another secret").waitFor();
  await control("/erase/" + lu.name);
  await c.closed;
  await a.reload();
  const gone = "This message was erased.";
  await bubble(a, lu.name, "I keep this").waitFor();
  assert.deepEqual(await texts(a, lu.name), [gone, "I keep this", gone]);
  assert.equal(await pane(a, lu.name).locator(".text.gone").count(), 2);
  assert.equal(await contact(a, lu.name).locator(".said.gone").textContent().then((t) => t?.trim()), gone);
  assert.ok(!(await a.content()).includes("secret"));
  // Writing to nobody is refused, and says so.
  await say(a, lu.name, "hello?");
  await pane(a, lu.name).getByRole("alert").getByRole("button", { name: "Delete" }).click();
  await bubble(a, lu.name, "hello?").waitFor({ state: "detached" });
  assert.deepEqual(await texts(a, lu.name), [gone, "I keep this", gone]);
});

test("the theme button: light, dark, as the system, kept over a reload and a login", { timeout }, async () => {
  const lisa = await user("Lisa");
  const p = await arrive(browser, lisa, { colorScheme: "dark" });
  const dark = "rgb(13, 20, 22)", light = "rgb(238, 242, 238)";
  const ground = () => p.evaluate(() => getComputedStyle(document.body).backgroundColor);
  /** @param {string} name @param {string} color */
  const is = async (name, color) => {
    await p.getByRole("button", { name: `Theme: ${name}` }).waitFor();
    assert.equal(await ground(), color, name);
  };
  const press = () => p.getByRole("button", { name: /^Theme/ }).click();
  await is("as the system", dark);
  await p.emulateMedia({ colorScheme: "light" });
  await is("as the system", light);
  await press();
  await p.emulateMedia({ colorScheme: "dark" });
  await is("light", light);
  await p.reload();
  await is("light", light);
  await press();
  await p.emulateMedia({ colorScheme: "light" });
  await is("dark", dark);
  await p.reload();
  await is("dark", dark);
  await p.getByRole("button", { name: "Log out" }).click();
  await p.getByLabel("Name").waitFor();
  await p.reload();
  await p.getByLabel("Name").waitFor();
  assert.equal(await ground(), dark, "before the login");
  await eventually("the server has ended the login", () => p.evaluate(() => !Object.keys(localStorage).some((k) => k.startsWith("parley.leaving."))));
  assert.deepEqual(await p.evaluate(() => ({ ...localStorage })), { "parley.theme": "dark" });
  await p.evaluate(() => localStorage.setItem("parley.theme", ""));
  await p.reload();
  await p.getByLabel("Name").waitFor();
  assert.equal(await ground(), light, "as the system again");
});

test("days are separated, and named as people name them", { timeout }, async () => {
  const [lu, au] = [await user("Lisa"), await user("Avi")];
  const room = roomOf(lu.name, au.name);
  const c = lu.session.connect();
  for (let i = 0; i < 6; i++) await c.send(room, `message ${i}`);
  const at = (/** @type {number} */ days) => new Date(new Date().setHours(12, 0, 0, 0) - days * 86_400_000);
  const when = [at(800), at(800), at(3), at(1), at(0), at(0)];
  const p = await page(browser, { timezoneId: Intl.DateTimeFormat().resolvedOptions().timeZone });
  await p.route("**/v1/rooms/*/messages?*", async (route) => {
    const resp = await route.fetch(), json = await resp.json();
    json.messages.forEach((/** @type {any} */ m, /** @type {number} */ i) => (m.sent_at = when[i].toISOString()));
    await route.fulfill({ response: resp, json });
  });
  // No socket: it would bring the messages first, as they are.
  await p.addInitScript((t) => {
    localStorage.setItem("parley.tokens", t);
    /** @type {any} */ (window).WebSocket = class {
      close() {}
    };
  }, JSON.stringify({ ...au.session.tokens, at: Date.now() }));
  await p.goto(url);
  await eventually("history has them", async () => (await au.session.messages(room, { limit: 10 })).messages.length === 6);
  await open(p, lu.name);
  await bubble(p, lu.name, "message 5").waitFor();
  const name = (/** @type {Date} */ d, /** @type {any} */ o) => new Intl.DateTimeFormat("en-GB", o).format(d);
  const days = await pane(p, lu.name).locator(".day:not(.new)").allTextContents();
  assert.deepEqual(days.map((d) => d.trim()), [
    name(when[0], { weekday: "long", day: "numeric", month: "long", year: "numeric" }), name(when[2], { weekday: "long" }), "Yesterday", "Today",
  ]);
  await c.close();
});

test("drafts are kept a conversation each, and the keys go from one to the other", { timeout }, async () => {
  const lisa = await user("Lisa"), [avi, dana] = [(await user("Avi")).name, (await user("Dana")).name];
  const p = await arrive(browser, lisa);
  /** @param {string} name */
  const focused = (name) => pane(p, name).locator("textarea:focus").waitFor();
  await open(p, avi);
  await say(p, avi, "first");
  await bubble(p, avi, "first").locator("[data-state=accepted]").waitFor(); // or it might be the later one
  await open(p, dana);
  await say(p, dana, "second");
  await bubble(p, dana, "second").locator("[data-state=accepted]").waitFor();
  await focused(dana);
  await p.keyboard.type("for Dana");
  await p.keyboard.press("Alt+1");
  await focused(avi);
  await p.keyboard.type("for Avi");
  await p.keyboard.press("Alt+2");
  await focused(dana);
  await p.keyboard.press("Alt+ArrowDown"); // the one below in the list: Avi's was earlier
  await focused(avi);
  await p.keyboard.press("Alt+ArrowUp");
  await focused(dana);
  await p.keyboard.press("Alt+1");
  await focused(avi);
  await p.evaluate(() => { // before anything is drawn
    for (const key of ["2", "ArrowDown"]) dispatchEvent(new KeyboardEvent("keydown", { key, altKey: true }));
  });
  await focused(avi);
  await p.keyboard.press("Alt+ArrowUp");
  await focused(dana);
  await contact(p, avi).locator(".said", { hasText: "Draft: for Avi" }).waitFor();
  await p.reload();
  for (const [name, text] of [[avi, "for Avi"], [dana, "for Dana"]]) assert.equal(await pane(p, name).getByRole("textbox").inputValue(), text);
  await p.getByRole("button", { name: "Keyboard" }).click();
  await p.getByRole("dialog").waitFor();
  await p.keyboard.press("Escape");
  await p.getByRole("dialog").waitFor({ state: "hidden" });
  await p.keyboard.press("Control+k");
  await p.keyboard.type("no such name");
  await p.getByText("Nobody has such a name.").waitFor();
  await p.keyboard.press("Escape");
  assert.equal(await p.getByLabel("Search contacts").inputValue(), "");
});

test("the start is under 100 KB over the wire, from this server only, and its policy holds", { timeout }, async () => {
  const lisa = await user("Lisa");
  const p = await page(browser);
  const cdp = await p.context().newCDPSession(p);
  let bytes = 0;
  /** @type {string[]} */
  const elsewhere = [];
  cdp.on("Network.loadingFinished", (e) => void (bytes += e.encodedDataLength));
  cdp.on("Network.requestWillBeSent", (e) => {
    if (!e.request.url.startsWith(url + "/")) elsewhere.push(e.request.url);
  });
  await cdp.send("Network.enable");
  await p.addInitScript((t) => localStorage.setItem("parley.tokens", t), JSON.stringify({ ...lisa.session.tokens, at: Date.now() }));
  await p.goto(url);
  await p.locator(".status.up").waitFor({ state: "attached" });
  await p.waitForLoadState("networkidle");
  assert.ok(bytes > 20_000 && bytes < 100_000, `${bytes} bytes`);
  assert.deepEqual(elsewhere, []);

  const tried = await p.evaluate(async () => {
    /** @type {string[]} */
    const refused = [];
    document.addEventListener("securitypolicyviolation", (e) => void refused.push(e.effectiveDirective));
    const attempt = (/** @type {() => void} */ f) => {
      try {
        f();
        return "done";
      } catch (e) {
        return /** @type {Error} */ (e).name;
      }
    };
    const b = document.createElement("button");
    const outcomes = [attempt(() => b.setAttribute("onclick", "window.owned = true")), attempt(() => (document.body.innerHTML = "<b>x</b>")), attempt(() => (document.createElement("script").text = "window.owned = true"))];
    b.click();
    // Later: what a debugger evaluates may evaluate, too.
    outcomes.push(await new Promise((r) => setTimeout(() => r(attempt(() => new Function("window.owned = true")())))));
    const asked = await fetch("https://example.invalid/").then(() => "answered", (e) => e.name);
    const img = new Image();
    const shown = await new Promise((r) => {
      img.onload = () => r("shown");
      img.onerror = () => r("refused");
      img.src = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=";
    });
    return { refused, outcomes, asked, shown, owned: "owned" in window };
  });
  assert.deepEqual([tried.owned, tried.asked, tried.shown], [false, "TypeError", "refused"]);
  assert.ok(!tried.outcomes.includes("done"), String(tried.outcomes));
  for (const d of ["require-trusted-types-for", "connect-src", "img-src"]) assert.ok(tried.refused.includes(d), `${d} in ${tried.refused}`);
  assert.ok(complaints.splice(0).every((c) => /Content Security Policy|TrustedHTML|TrustedScript/.test(c)));
});

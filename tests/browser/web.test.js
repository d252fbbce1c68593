// @ts-check
// The web client in real browsers, against a real server.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, afterEach, before, test } from "node:test";
import { roomOf } from "../../client/js/index.js";
import { PASSWORD, control, eventually, url, user } from "./lib.js";
import { arrive, bubble, contact, launch, login, mortal, noComplaints, open, page, pane, say, texts, watch } from "./chromium.js";

const timeout = 240_000; // of one test; each waits for events
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** @type {import("playwright-core").Browser} */
let browser;
before(async () => void (browser = await launch()));
after(() => browser.close());
afterEach(async () => {
  noComplaints();
  for (const c of browser.contexts()) await c.close();
});

/** Two users with conversations open on each other. */
async function couple() {
  const [lu, au] = [await user("Lisa"), await user("Avi")];
  const [lisa, avi] = [lu.name, au.name];
  const [l, a] = await Promise.all([arrive(browser, lu), arrive(browser, au)]);
  await Promise.all([open(l, avi), open(a, lisa)]);
  return { lisa, avi, lu, au, l, a };
}

/** @param {import("playwright-core").Page} p @param {string} name @param {"on" | "off"} dot */
const green = (p, name, dot) => pane(p, name).locator(`header .dot.${dot}`).waitFor({ timeout: 15_000 });

test("registers, refuses a wrong password, logs out", { timeout }, async () => {
  const p = await page(browser);
  await p.goto(url);
  const name = `New.${process.pid}`;
  await p.getByRole("button", { name: "Create an account" }).click();
  await p.getByLabel("Name").fill(name);
  await p.getByLabel("Password").fill(PASSWORD);
  await p.getByRole("button", { name: "Create account" }).click();
  await p.getByRole("heading", { name }).waitFor();
  await p.getByRole("button", { name: "Log out" }).click();
  await p.getByLabel("Name").fill(name);
  await p.getByLabel("Password").fill("not this one");
  await p.getByRole("button", { name: "Log in" }).click();
  await p.getByRole("alert").filter({ hasText: "do not belong together" }).waitFor();
  await eventually("nothing stays behind", async () => (await p.evaluate(() => localStorage.length)) === 0);
});

test("a log-out that the server has not heard is told, kept and tried until it is answered", { timeout }, async () => {
  const lisa = await user("Lisa");
  const p = await arrive(browser, lisa);
  const kept = () => p.evaluate(() => Object.keys(localStorage).map((k) => k.replace(/[^.]*$/, "")));
  const alive = () => lisa.api.session(lisa.session.tokens).contacts().then(() => true, (e) => e.code !== "unauthenticated");
  const notice = p.getByRole("status").filter({ hasText: "the server has not answered yet" });
  let answer = 0; // none
  await p.route("**/v1/sessions/current", (r) => (answer ? r.fulfill({ status: answer }) : r.abort()));
  await p.getByRole("button", { name: "Log out" }).click();
  await notice.waitFor();
  assert.deepEqual(await kept(), ["parley.leaving."], "all else is forgotten");
  assert.ok(await alive());

  answer = 503;
  await p.reload();
  await notice.waitFor();
  await p.getByRole("button", { name: "Log in" }).waitFor(); // it is no login that this page takes up
  assert.ok(await alive());

  await p.unroute("**/v1/sessions/current");
  await notice.waitFor({ state: "detached" });
  assert.deepEqual(await kept(), []);
  assert.ok(!(await alive()), "the tokens are void");
  await assert.rejects(lisa.session.refresh(), { code: "unauthenticated" });
});

test("a log-out with an access token that has run out renews it, and one that somebody else has ended is over", { timeout }, async () => {
  const lisa = await user("Lisa");
  const p = await arrive(browser, lisa);
  const late = await lisa.api.login(lisa.name, PASSWORD);
  await p.evaluate((t) => {
    localStorage.setItem("parley.leaving.1", JSON.stringify({ ...t, access_token: "", at: 1 }));
    localStorage.setItem("parley.leaving.2", JSON.stringify({ access_token: "", refresh_token: "r1.none", expires_in: 900, at: 1 }));
  }, late.tokens);
  await p.reload();
  await p.getByRole("listbox", { name: "Contacts" }).waitFor(); // this login stays
  await eventually("both are over", () => p.evaluate(() => !Object.keys(localStorage).some((k) => k.startsWith("parley.leaving."))));
  await assert.rejects(late.refresh(), { code: "unauthenticated" });
});

test("two browsers: green, both ways, marks, typing, two conversations at once", { timeout }, async () => {
  const { lisa, avi, l, a } = await couple();
  await Promise.all([green(l, avi, "on"), green(a, lisa, "on")]);
  await say(l, avi, "hello");
  await bubble(a, lisa, "hello").waitFor();
  await bubble(l, avi, "hello").locator("[data-state=read]").waitFor();
  await pane(a, lisa).getByRole("textbox").pressSequentially("hel");
  await pane(l, avi).getByText("typing…").waitFor();
  await say(a, lisa, "hello yourself");
  await bubble(l, avi, "hello yourself").waitFor();
  await pane(l, avi).locator(".day", { hasText: "Today" }).waitFor();

  const dana = (await user("Dana")).name;
  const d = await page(browser);
  await login(d, dana);
  await open(d, lisa);
  await say(d, lisa, "and me?");
  await contact(l, dana).locator(".badge").filter({ hasText: "1" }).waitFor();
  await l.waitForFunction(() => document.title.startsWith("(1)"));
  // Accepted and delivered, but not read: Lisa does not look at it.
  await bubble(d, lisa, "and me?").locator("[data-state=delivered]").waitFor();
  await open(l, dana);
  assert.equal(await l.locator(".pane").count(), 2, "side by side");
  await bubble(d, lisa, "and me?").locator("[data-state=read]").waitFor();
  await contact(l, dana).locator(".badge").waitFor({ state: "detached" });
  await Promise.all([say(a, lisa, "from Avi"), say(d, lisa, "from Dana")]);
  await Promise.all([bubble(l, avi, "from Avi").waitFor(), bubble(l, dana, "from Dana").waitFor()]);
  assert.ok(!(await texts(l, avi)).includes("from Dana"));
});

test("a browser is killed without a word: the other one sees it", { timeout }, async () => {
  const [lu, au] = [await user("Lisa"), await user("Avi")];
  const avi = au.name;
  const m = await mortal();
  await arrive(m.browser, au);
  const l = await arrive(browser, lu);
  await open(l, avi);
  await green(l, avi, "on");
  const killed = Date.now();
  await m.kill();
  await green(l, avi, "off");
  assert.ok(Date.now() - killed < 12_000, `it took ${Date.now() - killed} ms`);
  await pane(l, avi).getByText("last seen").waitFor();
});

test("reload and another device: history and unread are right", { timeout }, async () => {
  const { lisa, avi, au, l, a } = await couple();
  for (const t of ["one", "two"]) await say(l, avi, t);
  await bubble(a, lisa, "two").waitFor();
  await a.getByRole("button", { name: `Close the conversation with ${lisa}` }).click();
  for (const t of ["three", "four", "five"]) await say(l, avi, t);
  const badge = (/** @type {import("playwright-core").Page} */ p) => contact(p, lisa).locator(".badge").filter({ hasText: /^3/ });
  await badge(a).waitFor();
  const second = await arrive(browser, au);
  await badge(second).waitFor();
  await a.reload();
  await badge(a).waitFor();
  await open(a, lisa);
  await pane(a, lisa).locator(".day.new").waitFor();
  assert.deepEqual(await texts(a, lisa), ["one", "two", "three", "four", "five"]);
  await Promise.all([a, second].map((p) => contact(p, lisa).locator(".badge").waitFor({ state: "detached" })));
  await l.reload();
  await bubble(l, avi, "five").waitFor();
  assert.deepEqual(await texts(l, avi), ["one", "two", "three", "four", "five"]);
  await bubble(l, avi, "five").locator("[data-state=read]").waitFor();
});

test("what was unread before one's own last message is read by opening", { timeout }, async () => {
  const [lu, au] = [await user("Lisa"), await user("Avi")];
  const room = roomOf(lu.name, au.name);
  const [l, a] = [lu.session.connect(), au.session.connect()];
  for (const t of ["one", "two"]) await l.send(room, t);
  await a.send(room, "said without having read");
  const p = await arrive(browser, au);
  await contact(p, lu.name).locator(".badge").filter({ hasText: "2" }).waitFor();
  await open(p, lu.name);
  await contact(p, lu.name).locator(".badge").waitFor({ state: "detached" });
  await eventually("it is read on the server", async () => (await au.session.conversations()).conversations[0].unread === 0);
  await p.reload();
  await bubble(p, lu.name, "two").waitFor();
  assert.equal(await contact(p, lu.name).locator(".badge").count(), 0);
  await Promise.all([l.close(), a.close()]);
});

test("the server is killed while both type: nothing lost, nothing doubled, drafts and queue survive", { timeout }, async () => {
  const { lisa, avi, l, a } = await couple();
  await say(l, avi, "before");
  await bubble(a, lisa, "before").waitFor();
  await pane(a, lisa).getByRole("textbox").pressSequentially("half a sent");
  await control("/kill");
  await say(l, avi, "while away 1");
  await say(l, avi, "while away 2");
  await bubble(l, avi, "while away 2").locator("[data-state=waiting]").waitFor();
  await l.locator(".status.connecting").waitFor();
  await control("/start");
  await bubble(a, lisa, "while away 2").waitFor({ timeout: 40_000 });
  await bubble(l, avi, "while away 2").locator("[data-state=read]").waitFor();
  assert.equal(await pane(a, lisa).getByRole("textbox").inputValue(), "half a sent");
  await pane(a, lisa).getByRole("textbox").pressSequentially("ence");
  await a.keyboard.press("Enter");
  await bubble(l, avi, "half a sentence").waitFor();
  const want = ["before", "while away 1", "while away 2", "half a sentence"];
  assert.deepEqual(await texts(l, avi), want);
  assert.deepEqual(await texts(a, lisa), want);
  await l.locator(".status.up").waitFor({ state: "attached" });

  // The page is loaded anew while something waits. Once the browser believes to be offline, the page itself must come from somewhere:
  // so it is the socket that is cut, and a message is queued by a page that is then closed.
  await pane(l, avi).getByRole("textbox").fill("a draft");
  await control("/kill");
  await say(a, lisa, "queued over a reload");
  await bubble(a, lisa, "queued over a reload").locator("[data-state=waiting]").waitFor();
  const kept = await a.context().storageState();
  await a.context().close();
  await control("/start");
  const again = await browser.newContext({ storageState: kept, viewport: { width: 1280, height: 800 } });
  const b = await again.newPage();
  watch(b);
  await b.goto(url);
  await bubble(l, avi, "queued over a reload").waitFor({ timeout: 40_000 });
  await bubble(b, lisa, "queued over a reload").locator("[data-state=read]").waitFor({ timeout: 40_000 });
  await l.reload();
  assert.equal(await pane(l, avi).getByRole("textbox").inputValue(), "a draft");
  await bubble(l, avi, "queued over a reload").waitFor();
  assert.deepEqual(await texts(l, avi), [...want, "queued over a reload"]);
});

test("what a hostile message says is text, and stays in its bubble", { timeout }, async () => {
  const { lisa, avi, lu, l, a } = await couple();
  const room = roomOf(lisa, avi);
  const c = lu.session.connect();
  const hostile = [
    `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`,
    "\u202Egnihtyreve sesrever\u2066\u2067\u2068 never closed",
    "ש\u200Fלום <b>world</b> &amp; &lt;",
    "W".repeat(3000),
    "Z\u0351\u036B\u0343".repeat(200) + "\u0489".repeat(100),
    "x".repeat(16 << 10),
    "👩‍👩‍👧‍👦".repeat(500),
    "\n".repeat(200) + "the end",
  ];
  for (const text of hostile) {
    await c.send(room, text);
    // Exactly these characters, or as many of them as a folded text shows.
    await eventually(text.slice(0, 40), async () => text.startsWith((await texts(a, lisa)).at(-1) ?? "?") && (await texts(a, lisa)).at(-1));
    if (text.length <= 2500) continue;
    await pane(a, lisa).getByRole("button", { name: "Show all of it" }).last().click();
    await eventually("all of it is shown", async () => (await texts(a, lisa)).at(-1) === text);
  }
  await say(a, lisa, "still here");
  await bubble(l, avi, "still here").waitFor();
  for (const p of [a, l]) {
    const seen = await p.evaluate(() => ({
      title: document.title, images: document.querySelectorAll(".log img, .log script, .log b, .contact img").length,
      wide: document.documentElement.scrollWidth > innerWidth || [...document.querySelectorAll(".log, .contacts")].some((e) => e.scrollWidth > e.clientWidth + 1),
      outside: [...document.querySelectorAll(".bubble")].filter((e) => { const r = e.getBoundingClientRect(), q = /** @type {Element} */ (e.closest(".pane")).getBoundingClientRect(); return r.left < q.left || r.right > q.right; }).length,
      // Controls that nobody closed must not turn what stands around them.
      header: getComputedStyle(/** @type {Element} */ (document.querySelector(".title .name"))).direction,
    }));
    assert.deepEqual(seen, { title: "Parley", images: 0, wide: false, outside: 0, header: "ltr" });
  }
  // Too much is refused before it is sent.
  await pane(a, lisa).getByRole("textbox").fill("ä".repeat(9000));
  await pane(a, lisa).getByText("bytes too long").waitFor();
  assert.ok(await pane(a, lisa).getByRole("button", { name: "Send", exact: true }).isDisabled());
  await c.close();
});

test("history comes while one scrolls, without a jump, and new messages do not move what is read", { timeout }, async () => {
  const [lisa, avi] = [await user("Lisa"), await user("Avi")];
  const room = roomOf(lisa.name, avi.name);
  const c = lisa.session.connect();
  const n = 450;
  for (let i = 0; i < n; i += 50) await Promise.all(Array.from({ length: 50 }, (_, k) => c.send(room, `line ${i + k} ${"and more words ".repeat((i + k) % 9)}`.trim())));
  await eventually("history has them", async () => (await lisa.session.messages(room, { limit: 1 })).messages[0]?.seq && (await lisa.session.conversations()).conversations[0].last_message);
  const a = await arrive(browser, avi);
  await open(a, lisa.name);
  const log = a.getByRole("log");
  await bubble(a, lisa.name, await youngest(avi, room)).waitFor();

  /** The line in the middle of what is seen. */
  const middle = () => log.evaluate((el) => {
    const r = el.getBoundingClientRect(), y = r.top + r.height / 2;
    const line = [...el.querySelectorAll(".line")].find((x) => x.getBoundingClientRect().bottom > y);
    return line ? { id: /** @type {HTMLElement} */ (line).dataset.id, y: line.getBoundingClientRect().top } : null;
  });
  /** @param {string | undefined} id */
  const top = (id) => log.evaluate((el, id) => el.querySelector(`[data-id="${id}"]`)?.getBoundingClientRect().top, id);
  const frame = () => a.evaluate(() => new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r))));

  await log.hover();
  let steps = 0;
  for (; steps < 400; steps++) {
    const pages = a.waitForResponse((r) => r.url().includes("/messages?"), { timeout: 300 }).catch(() => null);
    await a.mouse.wheel(0, -700);
    await frame();
    const was = await middle();
    const came = await Promise.race([pages, frame().then(() => null)]);
    if (came) await came.finished();
    await frame();
    assert.ok(was, "something is seen at every place");
    const now = await top(was.id);
    assert.ok(now !== undefined && Math.abs(now - was.y) <= 1.5, `step ${steps}: what was read moved from ${was.y} to ${now}`);
    if (await a.getByText("This is where it began.").isVisible()) break;
  }
  assert.ok(steps < 400, "the beginning was not reached");
  await a.getByText(/^line 0/).waitFor();
  assert.ok(await a.locator(".line").count() < 120, "only what is near is in the document");

  const was = await middle();
  await c.send(room, "a new one");
  await a.getByRole("button", { name: "1 new, go to the end" }).waitFor();
  assert.ok(Math.abs(Number(await top(was?.id)) - Number(was?.y)) <= 1.5, "a new message moved what is read");
  await a.getByRole("button", { name: "1 new, go to the end" }).click();
  await bubble(a, lisa.name, "a new one").waitFor();
  await c.close();
});

/** @param {{session: import("../../client/js/api.js").Session}} who @param {string} room */
const youngest = async (who, room) => (await who.session.messages(room, { limit: 1 })).messages[0].content;

test("with the keyboard only", { timeout }, async () => {
  const [lisa, avi] = [(await user("Lisa")).name, (await user("Avi")).name];
  const p = await page(browser);
  await p.goto(url);
  await p.locator("input:focus").waitFor(); // the first field, as soon as there is one
  await p.keyboard.type(lisa);
  await p.keyboard.press("Tab");
  await p.keyboard.type(PASSWORD);
  await p.keyboard.press("Enter");
  await p.getByRole("listbox").waitFor();
  await p.keyboard.press("Control+k");
  await p.keyboard.type(avi);
  await contact(p, avi).waitFor();
  await p.keyboard.press("ArrowDown");
  await p.keyboard.press("Enter");
  await pane(p, avi).waitFor();
  await p.keyboard.type("typed blindly");
  await p.keyboard.press("Shift+Enter");
  await p.keyboard.type("on two lines");
  await p.keyboard.press("Enter");
  await bubble(p, avi, "typed blindly\non two lines").locator("[data-state=accepted]").waitFor();
  await p.keyboard.press("Escape");
  await pane(p, avi).waitFor({ state: "detached" });
});

test("on a phone one thing at a time, and the back button works", { timeout }, async () => {
  const [lisa, avi] = [await user("Lisa"), (await user("Avi")).name];
  const p = await arrive(browser, lisa, { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true });
  await p.getByLabel("Search contacts").fill(avi);
  await contact(p, avi).click();
  await pane(p, avi).waitFor();
  assert.equal(await p.getByRole("listbox").isVisible(), false);
  await p.goBack();
  await p.getByRole("listbox").waitFor();
  await pane(p, avi).waitFor({ state: "detached" });
  await contact(p, avi).click();
  await p.getByRole("button", { name: "Back to contacts" }).click();
  await p.getByRole("listbox").waitFor();
});

test("right to left, in names and texts", { timeout }, async () => {
  const [lisa, noa] = [await user("Lisa"), (await user("נועה")).name];
  const p = await arrive(browser, lisa);
  await open(p, noa);
  await say(p, noa, "שלום, מה שלומך?");
  await say(p, noa, "left again");
  await bubble(p, noa, "left again").waitFor();
  const directions = await pane(p, noa).locator(".text").evaluateAll((all) => all.map((e) => getComputedStyle(e).direction));
  assert.deepEqual(directions, ["rtl", "ltr"]);
});

test("notifications, when they are allowed", { timeout }, async () => {
  const { avi, l, a } = await couple();
  await a.evaluate(() => {
    /** @type {any} */ (window).told = [];
    /** @type {any} */ (window).Notification = class {
      static permission = "granted";
      /** @param {string} title @param {any} o */
      constructor(title, o) { /** @type {any} */ (window).told.push([title, o.body]); }
    };
    document.hasFocus = () => false;
  });
  await say(l, avi, "<b>look</b>");
  await a.waitForFunction(() => /** @type {any} */ (window).told.length === 1);
  assert.equal((await a.evaluate(() => /** @type {any} */ (window).told))[0][1], "<b>look</b>");
  await a.waitForFunction(() => document.title === "(1) Parley");
});

test("axe finds nothing, light and dark, wide and narrow", { timeout }, async () => {
  const { avi, lu, l } = await couple();
  await say(l, avi, "something to look at");
  await bubble(l, avi, "something to look at").waitFor();
  for (const [what, options] of /** @type {[string, any][]} */ ([
    ["light", {}], ["dark", { colorScheme: "dark" }], ["phone", { viewport: { width: 390, height: 844 } }], ["dark phone", { viewport: { width: 390, height: 844 }, colorScheme: "dark" }],
  ])) {
    const first = await page(browser, options);
    let p = first;
    const check = async (/** @type {string} */ where) => {
      await p.evaluate(axe);
      const found = await p.evaluate(() => /** @type {any} */ (window).axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
      assert.deepEqual(found.violations.map((/** @type {any} */ v) => [what, where, v.id, v.help, ...v.nodes.map((/** @type {any} */ n) => n.html.slice(0, 200) + " " + n.failureSummary)]), []);
    };
    await p.goto(url);
    await p.getByLabel("Name").waitFor();
    await check("login");
    p = await arrive(browser, lu, options);
    await contact(p, avi).waitFor();
    await p.locator(".status.up").waitFor({ state: "attached" });
    await check("contacts");
    await contact(p, avi).click();
    await bubble(p, avi, "something to look at").waitFor();
    await check("conversation");
  }
});

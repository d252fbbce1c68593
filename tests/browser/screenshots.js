// @ts-check
// Makes the screenshots of the README: `make screenshots`.
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Parley, roomOf } from "../../client/js/index.js";
import { serve } from "./serve.js";

const { url, stop } = await serve();
process.env.PARLEY_URL = url;
const { arrive, bubble, contact, launch, open, pane } = await import("./chromium.js");
const dir = fileURLToPath(new URL("../../docs/img/", import.meta.url));
mkdirSync(dir, { recursive: true });

const api = new Parley(url);
const people = Object.fromEntries(await Promise.all(["Lisa", "Avi", "Era", "Tsahi", "Admin"].map(async (name) => [name, { name }])));
/** @type {Record<string, string>} */
const words = { Lisa: "TestMe", Avi: "MoreMoreMore", Era: "Come on", Tsahi: "Virtual Environment", Admin: "AdminPassword" };
for (const name in people) {
  people[name].session = await api.login(name, words[name]);
  people[name].conn = people[name].session.connect();
  await people[name].conn.opened;
}
/** Who answers has read. @param {string} from @param {string} to @param {string} text */
async function say(from, to, text) {
  const { conn } = people[from];
  conn.read(roomOf(from, to), (await conn.send(roomOf(from, to), text)).seq);
}

for (const [from, to, text] of [
  ["Tsahi", "Lisa", "The build is green again 🎉"],
  ["Lisa", "Tsahi", "What was it?"],
  ["Tsahi", "Lisa", "A test that waited for a time instead of an event."],
  ["Admin", "Lisa", "Maintenance tonight at ten. Nobody should notice."],
  ["Avi", "Lisa", "Morning! Did the deploy go through?"],
  ["Lisa", "Avi", "Yes, all three gateways rolled while people were chatting."],
  ["Lisa", "Avi", "Everybody was back within two seconds, and nothing was lost."],
  ["Avi", "Lisa", "Nice. What did it cost?"],
  ["Lisa", "Avi", "One coffee ☕"],
  ["Avi", "Lisa", "I owe you one then.\nTonight at eight, the usual place?"],
  ["Lisa", "Avi", "I'll be there."],
  ["Era", "Lisa", "היי ליסה, יש לך רגע?"],
  ["Lisa", "Era", "Always. What is it?"],
  ["Era", "Lisa", "I wrote a client in forty lines, straight from the protocol page. Want to see?"],
  ["Lisa", "Era", "Forty? Show me!"],
  ["Era", "Lisa", "for await (const m of session.history(room)) {\n  console.log(m.sender, m.content);\n}"],
  ["Era", "Lisa", "The rest is reconnecting, and the SDK does that 😄"],
]) await say(from, to, text);

const browser = await launch();
const others = [];
for (const name of ["Avi", "Era"]) {
  const p = await arrive(browser, people[name]); // so that what Lisa said is read
  await open(p, "Lisa");
  others.push(p);
}
for (const scheme of /** @type {const} */ (["light", "dark"])) {
  const wide = await arrive(browser, people.Lisa, { colorScheme: scheme });
  for (const name of ["Avi", "Era"]) await contact(wide, name).click();
  await bubble(wide, "Avi", "I'll be there.").locator("[data-state=read]").waitFor();
  await pane(wide, "Era").getByRole("textbox").fill("Let me try that at once");
  await others[0].locator("textarea").pressSequentially("a");
  await pane(wide, "Avi").getByText("typing…").waitFor();
  await wide.locator(".status.up").waitFor({ state: "attached" });
  await wide.mouse.move(640, 400);
  await wide.evaluate(() => Promise.all(document.getAnimations().map((a) => a.finished)));
  await wide.screenshot({ path: `${dir}web-1280x800-${scheme}.png` });
  await wide.getByRole("button", { name: "Close the conversation with Avi" }).click();
  await wide.context().close();

  const phone = await arrive(browser, people.Lisa, { colorScheme: scheme, viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true });
  if (scheme === "light") {
    await contact(phone, "Tsahi").locator(".badge").waitFor();
    await phone.locator(".status.up").waitFor({ state: "attached" });
    await phone.evaluate(() => Promise.all(document.getAnimations().map((a) => a.finished)));
  } else {
    await contact(phone, "Era").click();
    await bubble(phone, "Era", "Forty? Show me!").waitFor();
    await phone.evaluate(() => Promise.all(document.getAnimations().map((a) => a.finished)));
  }
  await phone.screenshot({ path: `${dir}web-390x844-${scheme}.png` });
  await phone.context().close();
}
await browser.close();
await stop();
try {
  execFileSync("pngquant", ["--force", "--ext", ".png", "--speed", "1", "--quality", "70-95", ...readdirSync(dir).filter((f) => /^web-.*png$/.test(f)).map((f) => dir + f)]);
} catch (e) {
  console.error("not made smaller (apt-get install pngquant):", /** @type {Error} */ (e).message);
}
process.exit(0); // connections of people who are still there

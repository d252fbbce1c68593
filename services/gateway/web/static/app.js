// @ts-check
import { Component, createRef, html, render } from "./html.js";
import { Contacts } from "./contacts.js";
import { Login } from "./login.js";
import { Pane } from "./pane.js";
import { Avatar, Icon } from "./parts.js";
import { keep } from "./keep.js";
import { Store } from "./store.js";

const PANE_WIDTH = 400; // px that a conversation needs to stand beside others
const SIDE_WIDTH = 340;
const NARROW = 720; // px, as in style.css: one thing at a time below

const store = new Store();

const narrow = () => innerWidth < NARROW;
const mostPanes = () => (narrow() ? 1 : Math.max(1, Math.floor((innerWidth - SIDE_WIDTH) / PANE_WIDTH)));

/** @type {Record<string, string>} */
const STATUS = { offline: "Offline. What you write is sent when you are back.", connecting: "Connecting…", catching: "Catching up…", caught: "Caught up", up: "" };

const KEYS = [
  ["Ctrl K", "Search"], ["↑ ↓ Enter", "Choose a contact in the list"], ["Alt ↑ ↓", "Conversation before, after"], ["Alt 1 … 4", "Go to an open conversation"],
  ["Esc", "Close the conversation, empty the search"], ["Enter", "Send"], ["Shift Enter", "New line"],
];

class App extends Component {
  search = createRef();
  list = createRef();
  help = createRef();

  componentDidMount() {
    addEventListener("keydown", this.key);
    addEventListener("resize", () => draw());
    addEventListener("popstate", () => {
      if (narrow() && store.active) this.close(store.active, false);
    });
    setInterval(draw, 60_000); // "last seen 5 minutes ago" grows older
  }

  /** @param {string} room */
  open = (room) => {
    if (narrow() && !store.active) history.pushState("conversation", ""); // a phone's back button goes to the contacts
    store.open(room, mostPanes());
  };

  /**
   * @param {string} room
   * @param {boolean} [back]
   */
  close = (room, back = true) => {
    store.close(room);
    if (narrow() && back && history.state === "conversation") history.back();
    if (!store.active) this.list.current?.focus();
  };

  /** @param {KeyboardEvent} e */
  key = (e) => {
    if (!store.session) return;
    const mod = e.ctrlKey || e.metaKey;
    if (mod && e.key.toLowerCase() === "k") {
      e.preventDefault();
      this.search.current?.focus();
      this.search.current?.select();
    } else if (e.key === "Escape" && !this.help.current?.open) {
      if (document.activeElement === this.search.current && store.search) store.find("");
      else if (store.active && /** @type {Element} */ (e.target).closest?.(".pane")) this.close(store.active);
    } else if (e.altKey && (e.key === "ArrowDown" || e.key === "ArrowUp")) {
      e.preventDefault();
      const l = store.listed, at = l.findIndex((p) => p.room === store.active);
      const next = l[at + (e.key === "ArrowDown" ? 1 : -1)];
      if (next) this.open(next.room);
    } else if (e.altKey && e.key >= "1" && e.key <= "4") {
      const room = store.panes[Number(e.key) - 1];
      if (!room) return;
      e.preventDefault();
      /** @type {HTMLElement | null} */ (document.querySelector(`[data-room="${CSS.escape(room)}"] textarea`))?.focus();
    }
  };

  theme = () => {
    const next = /** @type {Record<string, string>} */ ({ "": "light", light: "dark", dark: "" })[keep.get("theme") ?? ""];
    keep.set("theme", next);
    if (next) document.documentElement.dataset.theme = next;
    else delete document.documentElement.dataset.theme;
    draw();
  };

  render() {
    if (!store.session) return html`<${Login} store=${store} />`;
    const most = mostPanes();
    // Those that have no room at this width stay open, and show again when there is more.
    const kept = new Set([...store.used].reverse().slice(0, most));
    const shown = store.panes.filter((p) => kept.has(p));
    const theme = keep.get("theme") ?? "";
    return html`<main class=${"app" + (store.active ? " talking" : "")}>
      <h1 class="sr">Parley</h1>
      <nav class="side" aria-label="Contacts">
        <header>
          <${Avatar} name=${store.me || "?"} />
          <h2><bdi>${store.me}</bdi></h2>
          ${store.mayNotify === "default" && html`<button class="icon-button" type="button" aria-label="Allow notifications" title="Allow notifications" onClick=${() => store.askToNotify()}><${Icon} name="bell" /></button>`}
          <button class="icon-button" type="button" aria-label=${`Theme: ${theme || "as the system"}`} title=${`Theme: ${theme || "as the system"}`} onClick=${this.theme}><${Icon} name=${theme === "dark" ? "moon" : theme === "light" ? "sun" : "auto"} /></button>
          <button class="icon-button wide" type="button" aria-label="Keyboard" title="Keyboard" onClick=${() => this.help.current.showModal()}><${Icon} name="help" /></button>
          <button class="icon-button" type="button" aria-label="Log out" title="Log out" onClick=${() => store.logout()}><${Icon} name="out" /></button>
        </header>
        <div class="search"><${Icon} name="search" />
          <input type="search" aria-label="Search contacts" placeholder="Search" autocomplete="off" spellcheck="false" ref=${this.search} value=${store.search} dir="auto"
            onInput=${(/** @type {any} */ e) => store.find(e.target.value)} onKeyDown=${(/** @type {KeyboardEvent} */ e) => {
              if (e.key === "ArrowDown") { e.preventDefault(); this.list.current?.focus(); }
              if (e.key === "Enter" && store.listed[0]) this.open(store.listed[0].room);
            }} /></div>
        <p class=${"status " + store.status} role="status">${STATUS[store.status]}</p>
        <${Contacts} store=${store} ref=${this.list} onOpen=${this.open} tick=${tick} />
        ${store.listed.length === 0 && html`<p class="note empty">${store.listError || (store.search ? "Nobody has such a name." : store.ready ? "Nobody is here yet." : "Loading…")}</p>`}
      </nav>
      <div class="panes">
        ${shown.map((name) => html`<${Pane} key=${name} store=${store} room=${store.room(name)} active=${store.active === name} only=${narrow()} onClose=${() => this.close(name)} tick=${tick} />`)}
        ${shown.length === 0 && html`<div class="welcome"><img src="web/icon.svg" alt="" width="72" height="72" /><h2>Choose somebody to talk to</h2>
          <p>Conversations open side by side when there is room. <kbd>Ctrl K</kbd> searches.</p></div>`}
      </div>
      <div class="sr" aria-live="polite">${store.announcement}</div>
      <dialog ref=${this.help} aria-labelledby="keys"><h2 id="keys">Keyboard</h2>
        <dl>${KEYS.map(([k, what]) => html`<div><dt><kbd>${k}</kbd></dt><dd>${what}</dd></div>`)}</dl>
        <form method="dialog"><button class="primary" autofocus>Close</button></form></dialog>
    </main>`;
  }
}

const root = /** @type {HTMLElement} */ (document.getElementById("app"));
let tick = 0, planned = false;

function draw() {
  planned = false;
  tick++;
  render(html`<${App} />`, root);
}

store.onChange = () => {
  const n = store.unread;
  document.title = n ? `(${n > 99 ? "99+" : n}) Parley` : "Parley";
  if (planned) return;
  planned = true;
  // A hidden page has no frames.
  if (document.visibilityState === "visible") requestAnimationFrame(draw);
  else setTimeout(draw, 200);
};

store.resume();
for (const room of [...store.panes]) void store.older(store.room(room));
draw();

// @ts-check
import { Component, createRef, html } from "./html.js";
import { Avatar, presence, when } from "./parts.js";

export const ROW = 68; // px, as in style.css
const SPARE = 6; // rows drawn beyond what is seen
const NEAR = 50; // rows beyond what is seen whose presence is asked for

/** The list of contacts: only the rows that are seen exist, however many there are. */
export class Contacts extends Component {
  box = createRef();
  state = { top: 0, height: 800 };
  at = 0; // the row that the keyboard is on

  componentDidMount() {
    this.watch = new ResizeObserver(() => this.setState({ height: this.box.current.clientHeight }));
    this.watch.observe(this.box.current);
  }

  componentWillUnmount() {
    this.watch?.disconnect();
  }

  scrolled = () => {
    // A row is drawn anew only when another one comes into sight.
    const top = Math.floor(this.box.current.scrollTop / ROW) * ROW;
    if (top !== this.state.top) this.setState({ top });
  };

  /** @param {KeyboardEvent} e */
  key = (e) => {
    const list = this.props.store.listed;
    const page = Math.max(1, Math.floor(this.state.height / ROW) - 1);
    /** @type {Record<string, number>} */
    const to = { ArrowDown: this.at + 1, ArrowUp: this.at - 1, Home: 0, End: list.length - 1, PageDown: this.at + page, PageUp: this.at - page };
    if (e.key === "Enter" || e.key === " ") {
      e.preventDefault();
      if (list[this.at]) this.props.onOpen(list[this.at].room);
    } else if (e.key in to && !e.altKey) {
      e.preventDefault();
      this.go(to[e.key]);
    }
  };

  /** @param {number} n */
  go(n) {
    this.at = Math.max(0, Math.min(this.props.store.listed.length - 1, n));
    const box = this.box.current, y = this.at * ROW;
    if (y < box.scrollTop) box.scrollTop = y;
    else if (y + ROW > box.scrollTop + box.clientHeight) box.scrollTop = y + ROW - box.clientHeight;
    this.setState({ top: Math.floor(box.scrollTop / ROW) * ROW });
  }

  focus() {
    this.box.current?.focus();
  }

  render() {
    const { store } = this.props, list = store.listed;
    this.at = Math.max(0, Math.min(this.at, list.length - 1));
    const first = Math.max(0, this.state.top / ROW - SPARE);
    const last = Math.min(list.length, Math.ceil((this.state.top + this.state.height) / ROW) + SPARE + 1);
    store.shows(list.slice(Math.max(0, first - NEAR), last + NEAR).map((/** @type {any} */ p) => p.name));
    return html`<div class="contacts" role="listbox" aria-label="Contacts" tabindex="0" ref=${this.box} onScroll=${this.scrolled} onKeyDown=${this.key}
        aria-activedescendant=${list.length ? "c" + this.at : null}>
      <div class="rows" role="presentation" style=${{ height: list.length * ROW + "px" }}>
        ${list.slice(first, last).map((/** @type {any} */ p, /** @type {number} */ i) => this.row(p, first + i, list.length))}
      </div>
    </div>`;
  }

  /**
   * @param {import("./store.js").Person} p
   * @param {number} n
   * @param {number} of
   */
  row(p, n, of) {
    const { store } = this.props;
    const room = store.rooms.get(p.room);
    const unread = room?.unread ?? 0;
    const open = store.active === p.room;
    const draft = open ? "" : store.draft(p.room);
    const last = room?.out.at(-1) ?? room?.last;
    const typing = room && room.typingUntil > Date.now();
    const mine = last && (!("sender" in last) || last.sender === store.me);
    const there = presence(p);
    const gone = !typing && !draft && last && "gone" in last;
    const said = typing ? "typing…" : draft ? draft.slice(0, 120) : last ? last.content.slice(0, 120) : there;
    return html`<div key=${p.name} id=${"c" + n} role="option" aria-selected=${open ? "true" : "false"} aria-setsize=${of} aria-posinset=${n + 1}
        class=${"contact" + (open ? " open" : "") + (n === this.at ? " at" : "") + (unread ? " unread" : "")} style=${{ transform: `translateY(${n * ROW}px)` }}
        onClick=${() => { this.at = n; this.props.onOpen(p.room); }}>
      <${Avatar} name=${p.name} online=${p.online} />
      <span class="who"><bdi>${p.name}</bdi><span class="sr">, ${there || "presence unknown"}</span></span>
      <span class="when">${when(room?.at ?? 0)}</span>
      <span class=${"said" + (typing ? " typing" : draft ? " draft" : gone ? " gone" : "")}>
        ${!typing && draft ? html`<b>Draft: </b>` : !typing && mine ? "You: " : ""}<bdi>${said}</bdi></span>
      ${unread > 0 && html`<span class="badge">${unread > 99 ? "99+" : unread}<span class="sr"> unread</span></span>`}
    </div>`;
  }
}

// @ts-check
import { Component, createRef, html } from "./html.js";
import { Icon, Tick, dayName, dayOf, time } from "./parts.js";

const OVER = 600; // px drawn beyond what is seen, on both sides
const NEAR = 40; // px from the end that still count as the end
const LONG = 2500; // characters: a longer message is folded
const GROUP_MS = 5 * 60_000; // messages of one person that belong together

/**
 * The messages of a conversation. Only those near what is seen exist in the document; spacers stand for the others, with their
 * measured height or an estimate. The scroller runs from the bottom (column-reverse), so what is put on top, or turns out
 * to be of another height there, moves nothing that is seen; for what changes below, the scroll position is corrected.
 */
export class Log extends Component {
  box = createRef();
  inner = createRef();
  atEnd = true;
  gen = 0; // of measurements: a new width makes all of them void
  width = 600;
  height = 600;
  first = 0;
  last = 0;
  /** @type {Float64Array} where each line ends, from the top */
  ends = new Float64Array(0);
  stale = true;
  count = 0;
  newBelow = 0;
  unfolded = new Set();

  componentDidMount() {
    this.watch = new ResizeObserver(() => {
      const b = this.box.current;
      if (b.clientWidth !== this.width) {
        this.gen++;
        this.stale = true;
      }
      this.width = b.clientWidth;
      this.height = b.clientHeight;
      this.forceUpdate();
    });
    this.watch.observe(this.box.current);
    this.measure();
  }

  componentWillUnmount() {
    this.watch?.disconnect();
  }

  /** @param {any} next */
  shouldComponentUpdate(next) {
    return next.room !== this.props.room || next.version !== this.version;
  }

  /** @param {number} i */
  item(i) {
    const { room } = this.props;
    return i < room.lines.length ? room.lines[i] : room.out[i - room.lines.length];
  }

  get length() {
    return this.props.room.lines.length + this.props.room.out.length;
  }

  /** @param {any} m */
  estimate(m) {
    const perLine = Math.max(20, (Math.min(this.width * 0.78, 560) - 28) / 7.6);
    return 36 + 21 * Math.min(18, Math.ceil(m.content.length / perLine));
  }

  /** Adds up the heights, where they have changed. */
  layout() {
    const n = this.length;
    if (!this.stale && this.ends.length === n) return;
    this.ends = new Float64Array(n);
    let y = 0;
    for (let i = 0; i < n; i++) {
      const m = this.item(i);
      y += m.gen === this.gen && m.h ? m.h : this.estimate(m);
      this.ends[i] = y;
    }
    this.stale = false;
  }

  /** The first line that ends below y. @param {number} y */
  lineAt(y) {
    let lo = 0, hi = this.ends.length;
    while (lo < hi) {
      const mid = (lo + hi) >> 1;
      if (this.ends[mid] < y) lo = mid + 1;
      else hi = mid;
    }
    return lo;
  }

  /** Which lines to draw. */
  range() {
    this.layout();
    const total = this.ends.at(-1) ?? 0;
    const bottom = total + (this.box.current?.scrollTop ?? 0); // scrollTop is 0 at the end and falls
    const first = this.lineAt(bottom - this.height - OVER);
    const last = Math.min(this.length, this.lineAt(bottom + OVER) + 1);
    return [Math.min(first, Math.max(0, last - 1)), last];
  }

  scrolled = () => {
    const b = this.box.current;
    this.atEnd = b.scrollTop > -NEAR;
    if (this.atEnd && this.newBelow) {
      this.newBelow = 0;
      this.forceUpdate();
    }
    const [first, last] = this.range();
    // Not for every line: half of what is drawn in advance may be used up first.
    const margin = 6;
    if (Math.abs(first - this.first) > margin || Math.abs(last - this.last) > margin || (first === 0) !== (this.first === 0) || (last === this.length) !== (this.last === this.length)) this.forceUpdate();
    this.more();
    this.props.onScroll(this.atEnd);
  };

  /** Asks for older messages while there is still something to see. */
  more() {
    const { room, store } = this.props;
    const b = this.box.current;
    if (!b || !room.loaded || !room.more || room.loading || room.failed) return;
    if (b.scrollHeight - b.clientHeight + b.scrollTop < 1500) void store.older(room);
  }

  getSnapshotBeforeUpdate() {
    const b = this.box.current;
    if (this.atEnd) return null;
    // The first line that is seen stays where it is.
    const top = b.getBoundingClientRect().top;
    for (const el of this.inner.current.querySelectorAll("[data-id]")) {
      const r = el.getBoundingClientRect();
      if (r.bottom > top) return { id: el.dataset.id, y: r.top };
    }
    return null;
  }

  /**
   * @param {any} before
   * @param {any} _state
   * @param {{id: string, y: number} | null} anchor
   */
  componentDidUpdate(before, _state, anchor) {
    const b = this.box.current;
    if (before.room !== this.props.room) this.atEnd = true;
    if (this.atEnd) {
      if (b.scrollTop !== 0) b.scrollTop = 0;
    } else if (anchor) {
      const el = this.inner.current.querySelector(`[data-id="${CSS.escape(anchor.id)}"]`);
      const moved = el ? el.getBoundingClientRect().top - anchor.y : 0;
      if (Math.abs(moved) > 0.5) b.scrollTop += moved;
    }
    this.measure();
    this.more();
  }

  /** Notes the heights of what is drawn. */
  measure() {
    let i = this.first;
    for (const el of this.inner.current.querySelectorAll("[data-id]")) {
      const m = this.item(i++);
      if (!m) break;
      const h = el.getBoundingClientRect().height;
      if (m.h !== h || m.gen !== this.gen) {
        m.h = h;
        m.gen = this.gen;
        this.stale = true;
      }
    }
  }

  toEnd = () => {
    this.atEnd = true;
    this.newBelow = 0;
    this.box.current.scrollTop = 0;
    this.forceUpdate();
    this.props.onScroll(true);
  };

  render() {
    const { room, store } = this.props;
    this.version = this.props.version;
    if (this.room !== room) {
      this.room = room;
      this.stale = true;
      this.atEnd = true;
      this.newBelow = 0;
      this.count = room.last?.seq ?? 0;
    }
    if (room.last && room.last.seq > this.count) {
      if (!this.atEnd && room.last.sender !== store.me) this.newBelow++;
      this.count = room.last.seq;
    }
    if (this.ends.length !== this.length) this.stale = true;
    const [first, last] = this.range();
    this.first = first;
    this.last = last;
    const total = this.ends.at(-1) ?? 0;
    const above = first > 0 ? this.ends[first - 1] : 0;
    const below = last > 0 ? total - this.ends[last - 1] : 0;
    const rows = [];
    for (let i = first; i < last; i++) rows.push(this.row(i));
    return html`<div class="logbox">
      <div class="log" role="log" aria-live="off" aria-label=${"Messages with " + room.peer} tabindex="0" ref=${this.box} onScroll=${this.scrolled}>
        <div class="lines" ref=${this.inner}>
          ${first === 0 && this.head(room)}
          <div class="spacer" style=${{ height: above + "px" }}></div>
          ${rows}
          <div class="spacer" style=${{ height: below + "px" }}></div>
        </div>
      </div>
      ${this.newBelow > 0 || !this.atEnd ? html`<button class="toend" type="button" onClick=${this.toEnd} aria-label=${this.newBelow ? `${this.newBelow} new, go to the end` : "Go to the end"}>
        <${Icon} name="down" />${this.newBelow > 0 && html`<span class="badge">${this.newBelow}</span>`}</button>` : null}
    </div>`;
  }

  /** @param {import("./room.js").Room} room */
  head(room) {
    if (room.failed) {
      return html`<p class="note">${room.failed} <button class="link" type="button" onClick=${() => { room.failed = ""; void this.props.store.older(room); }}>Try again</button></p>`;
    }
    if (room.loading || room.more) return html`<p class="note">Loading…</p>`;
    return html`<p class="note">${this.length ? "This is where it began." : html`Say hello to <bdi>${room.peer}</bdi>.`}</p>`;
  }

  /** @param {number} i */
  row(i) {
    const { room, store } = this.props;
    const m = this.item(i), before = i > 0 ? this.item(i - 1) : null;
    const waits = !("seq" in m);
    const mine = waits || m.sender === store.me;
    const day = !before || dayOf(before.at) !== dayOf(m.at);
    const unread = !waits && room.newFrom > 0 && !mine && m.seq >= room.newFrom && (!before || !("seq" in before) || before.seq < room.newFrom);
    const follows = before && !day && !unread && m.at - before.at < GROUP_MS && (!("seq" in before) || before.sender === store.me) === mine;
    const folded = m.content.length > LONG && !this.unfolded.has(m.id);
    const state = waits ? (m.error ? "failed" : "waiting") : mine ? room.state(m.seq) : null;
    return html`<div class="line" key=${m.id + (mine ? "" : "'")} data-id=${(mine ? "m" : "p") + m.id}>
      ${day && html`<p class="day"><span>${dayName(m.at)}</span></p>`}
      ${unread && html`<p class="day new"><span>New</span></p>`}
      <div class=${"bubble" + (mine ? " mine" : "") + (follows ? " follows" : "")}>
        <span class="sr">${mine ? "You" : room.peer}: </span>
        <div class=${"text" + (folded ? " folded" : "") + (m.gone ? " gone" : "")} dir="auto">${folded ? m.content.slice(0, LONG) : m.content}</div>
        ${folded && html`<button class="link" type="button" onClick=${() => { this.unfolded.add(m.id); this.forceUpdate(); }}>Show all of it</button>`}
        <span class="meta"><time datetime=${new Date(m.at).toISOString()}>${time(m.at)}</time>${state && html`<${Tick} state=${state} />`}</span>
      </div>
      ${waits && m.error && html`<p class="failure" role="alert">${m.error}${" "}
        <button class="link" type="button" onClick=${() => store.settle(room, m, true)}>Send again</button>${" "}
        <button class="link" type="button" onClick=${() => store.settle(room, m, false)}>Delete</button></p>`}
    </div>`;
  }
}

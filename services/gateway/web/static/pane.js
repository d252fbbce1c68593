// @ts-check
import { Component, createRef, html } from "./html.js";
import { Log } from "./log.js";
import { Avatar, Icon, dayOf, presence } from "./parts.js";

const encoder = new TextEncoder();
// Where a keyboard is on the screen, its Enter makes a new line, as everywhere on phones.
const touch = matchMedia("(pointer: coarse)").matches;

/** One conversation. */
export class Pane extends Component {
  field = createRef();
  atEnd = true;
  state = { text: "", room: "" };

  /**
   * @param {any} props
   * @param {any} state
   */
  static getDerivedStateFromProps(props, state) {
    return state.room === props.room.name ? null : { room: props.room.name, text: props.store.draft(props.room.name) };
  }

  componentDidMount() {
    addEventListener("focus", this.look);
    document.addEventListener("visibilitychange", this.look);
    this.look();
    if (this.props.active) this.enter();
  }

  componentWillUnmount() {
    removeEventListener("focus", this.look);
    document.removeEventListener("visibilitychange", this.look);
  }

  componentDidUpdate() {
    this.look();
    if (this.props.store.wanted === this.props.room.name) this.enter();
  }

  enter() {
    this.props.store.wanted = "";
    if (!touch) this.field.current.focus(); // on a phone the keyboard would hide half of the conversation
  }

  /** What is on the screen of somebody who looks at it has been read. */
  look = () => {
    const { store, room } = this.props;
    if (this.atEnd && room.loaded && document.visibilityState === "visible" && document.hasFocus()) store.seen(room);
  };

  /** @param {boolean} atEnd */
  scrolled = (atEnd) => {
    this.atEnd = atEnd;
    this.look();
  };

  /** @param {InputEvent} e */
  input = (e) => {
    const text = /** @type {HTMLTextAreaElement} */ (e.target).value;
    this.setState({ text });
    this.props.store.write(this.props.room.name, text);
  };

  /** @param {KeyboardEvent} e */
  key = (e) => {
    if (e.key === "Enter" && !e.shiftKey && !e.isComposing && !touch) {
      e.preventDefault();
      this.send();
    }
  };

  /** @param {Event} [e] */
  send = (e) => {
    e?.preventDefault();
    const { store, room } = this.props;
    const text = this.state.text.trim();
    if (!text || this.over(text) > 0) return;
    store.submit(room.name, text);
    this.setState({ text: "" });
    this.field.current.focus();
  };

  /** How many bytes a text is too long; only a long one is counted. @param {string} text */
  over(text) {
    return text.length * 3 <= this.props.store.contentBytes ? 0 : Math.max(0, encoder.encode(text).length - this.props.store.contentBytes);
  }

  render() {
    const { store, room, active, onClose, only } = this.props;
    const p = store.person(room.peer);
    const typing = room.typingUntil > Date.now();
    const over = this.over(this.state.text);
    const id = "w" + store.panes.indexOf(room.name);
    return html`<section class=${"pane" + (active ? " active" : "")} aria-label=${"Conversation with " + room.peer} data-room=${room.name} onFocusIn=${() => store.focus(room.name)}>
      <header>
        ${only && html`<button class="icon-button" type="button" aria-label="Back to contacts" onClick=${onClose}><${Icon} name="back" /></button>`}
        <${Avatar} name=${room.peer} online=${p.online} />
        <div class="title"><h2 class="name"><bdi>${room.peer}</bdi></h2><p class=${"presence" + (p.online ? " on" : "")} aria-live="polite">${typing ? "typing…" : presence(p)}</p></div>
        ${!only && html`<button class="icon-button" type="button" aria-label=${"Close the conversation with " + room.peer} onClick=${onClose}><${Icon} name="close" /></button>`}
      </header>
      <${Log} store=${store} room=${room} version=${room.version + ":" + (room.loading ? 1 : 0) + ":" + dayOf(Date.now())} onScroll=${this.scrolled} />
      <form class="composer" onSubmit=${this.send}>
        <label class="sr" for=${id}>Message to ${room.peer}</label>
        <textarea id=${id} ref=${this.field} rows="1" dir="auto" placeholder="Write a message" enterkeyhint=${touch ? "enter" : "send"} value=${this.state.text} onInput=${this.input} onKeyDown=${this.key}
          aria-invalid=${over ? "true" : null} aria-describedby=${over ? id + "e" : null}></textarea>
        <button class="send" aria-label="Send" disabled=${!this.state.text.trim() || over > 0}><${Icon} name="send" /></button>
        ${over > 0 && html`<p class="error" id=${id + "e"} role="alert">${over} bytes too long.</p>`}
      </form>
    </section>`;
  }
}

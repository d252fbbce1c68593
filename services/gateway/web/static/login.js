// @ts-check
import { ServerError } from "./js/index.js";
import { Component, html } from "./html.js";

/** @type {Record<string, string>} */
const WORDS = {
  unauthenticated: "This name and password do not belong together.",
  username_taken: "Somebody has this name already.",
  invalid_username: "A name has 1 to 64 letters, digits or . _ - @ + and begins with a letter or digit.",
  rate_limited: "Too many tries. Wait a moment and try again.",
  unavailable: "Logging in is not possible right now. Try again in a moment.",
};

/** The first page: log in, or make an account. */
export class Login extends Component {
  state = { fresh: false, busy: false, error: "" };

  /** @param {SubmitEvent} e */
  submit = async (e) => {
    e.preventDefault();
    if (this.state.busy) return;
    const form = /** @type {HTMLFormElement} */ (e.target);
    const data = new FormData(form);
    this.setState({ busy: true, error: "" });
    try {
      await this.props.store.login(String(data.get("username")).trim(), String(data.get("password")), this.state.fresh);
    } catch (err) {
      const said = err instanceof ServerError ? WORDS[err.code] ?? err.message + "." : "The server cannot be reached. Check your connection.";
      this.setState({ busy: false, error: said });
      /** @type {HTMLElement | null} */ (form.elements.namedItem("username"))?.focus();
    }
  };

  render() {
    const { fresh, busy, error } = this.state;
    const { farewell, leaving } = this.props.store;
    return html`<main class="login">
      <div class="card">
        <h1><img src="web/icon.svg" alt="" width="44" height="44" /> Parley<span>.</span></h1>
        <p class="lead">${fresh ? "A name and a password, and you can talk." : "Good to see you again."}</p>
        ${farewell && html`<p class="notice" role="status">${farewell}</p>`}
        ${leaving.failed && html`<p class="notice" role="status">You are logged out on this page, but the server has not answered yet. This page asks it again until it does: leave it open.</p>`}
        <form onSubmit=${this.submit}>
          <label>Name<input name="username" autocomplete="username" autocapitalize="none" spellcheck="false" maxlength="64" required autofocus dir="auto"
            aria-describedby=${error ? "login-error" : null} aria-invalid=${error ? "true" : null} /></label>
          <label>Password<input name="password" type="password" autocomplete=${fresh ? "new-password" : "current-password"} minlength=${fresh ? 8 : 1} required
            aria-describedby=${fresh ? "password-hint" : null} /></label>
          ${fresh && html`<p class="hint" id="password-hint">At least 8 characters.</p>`}
          <p class="error" id="login-error" role="alert">${error}</p>
          <button class="primary" disabled=${busy}>${busy ? "One moment…" : fresh ? "Create account" : "Log in"}</button>
        </form>
        <p class="switch">${fresh ? "You have an account?" : "New here?"}${" "}
          <button class="link" type="button" onClick=${() => this.setState({ fresh: !fresh, error: "" })}>${fresh ? "Log in" : "Create an account"}</button></p>
      </div>
    </main>`;
  }
}

// @ts-check
// The two vendored libraries, joined: templates that make Preact's elements. Text in them is text; nothing here parses HTML.
import htm from "./vendor/htm.mjs";
import * as preact from "./vendor/preact.mjs";

const { h, render } = preact;
/** @type {{new (props?: any): {props: any, state: any, base?: any, setState(s: any): void, forceUpdate(): void}}} */
export const Component = /** @type {any} */ (preact.Component);
/** @type {() => {current: any}} */
export const createRef = preact.createRef;
/** @type {(strings: TemplateStringsArray, ...values: any[]) => any} */
export const html = /** @type {any} */ (htm).bind(h);
export { render };

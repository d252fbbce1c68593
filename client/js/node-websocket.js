// @ts-check
// A WebSocket client for Node versions that have none (20): text frames, the part of the browser's interface that connection.js
// uses. RFC 6455 without extensions.
import { createHash, randomBytes } from "node:crypto";
import http from "node:http";
import https from "node:https";

const MAX_FRAME = 4 << 20; // bytes of a message from the server: the connection is closed
const HANDSHAKE_TIMEOUT = 10_000;

export default class NodeWebSocket {
  readyState = 0;
  /** @type {((e: {data: string}) => void) | null} */
  onmessage = null;
  /** @type {((e: {code: number, reason: string}) => void) | null} */
  onclose = null;
  /** @type {(() => void) | null} */
  onopen = null;
  /** @type {((e: unknown) => void) | null} */
  onerror = null;
  /** @type {import("node:net").Socket | null} */
  #socket = null;
  /** @type {Buffer} */
  #in = Buffer.alloc(0);
  /** @type {Buffer[]} parts of a fragmented message */
  #parts = [];
  #size = 0;
  #end = { code: 1006, reason: "" };

  /**
   * @param {string} url
   * @param {string[]} protocols
   */
  constructor(url, protocols) {
    const u = new URL(url.replace(/^ws/, "http"));
    const key = randomBytes(16).toString("base64");
    const req = (u.protocol === "https:" ? https : http).request(u, {
      headers: { Connection: "Upgrade", Upgrade: "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key, "Sec-WebSocket-Protocol": protocols.join(", ") },
      timeout: HANDSHAKE_TIMEOUT, agent: false,
    });
    this.req = req;
    req.on("timeout", () => req.destroy(new Error("no answer to the handshake")));
    req.on("response", (resp) => {
      resp.resume();
      this.#fail(new Error(`the handshake was refused: HTTP ${resp.statusCode}`));
    });
    req.on("error", (e) => this.#fail(e));
    req.on("upgrade", (resp, socket, head) => {
      const want = createHash("sha1").update(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest("base64");
      if (resp.headers["sec-websocket-accept"] !== want) return this.#fail(new Error("the answer is no WebSocket's"));
      this.#socket = /** @type {import("node:net").Socket} */ (socket);
      this.#socket.setTimeout(0);
      this.#socket.setNoDelay(true);
      socket.on("data", (b) => this.#read(b));
      socket.on("error", (e) => this.onerror?.(e));
      socket.on("close", () => this.#closed());
      if (this.readyState > 1) return void socket.destroy();
      this.readyState = 1;
      this.onopen?.();
      if (head.length) this.#read(head);
    });
    req.end();
  }

  /** @param {string} text */
  send(text) {
    this.#write(1, Buffer.from(text));
  }

  close(code = 1000, reason = "") {
    if (this.readyState >= 2) return;
    const open = this.readyState === 1;
    this.readyState = 2;
    if (!open) {
      this.req.destroy();
      return this.#closed();
    }
    const b = Buffer.alloc(2 + Buffer.byteLength(reason));
    b.writeUInt16BE(code);
    b.write(reason, 2);
    this.#write(8, b);
    // The server closes its side; one that does not is not waited for.
    setTimeout(() => this.#socket?.destroy(), 2000).unref();
  }

  /** @param {unknown} e */
  #fail(e) {
    this.onerror?.(e);
    this.req.destroy();
    this.#socket?.destroy();
    this.#closed();
  }

  #closed() {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.onclose?.(this.#end);
  }

  /**
   * @param {number} op
   * @param {Buffer} data
   */
  #write(op, data) {
    if (!this.#socket || this.#socket.destroyed) return;
    const n = data.length;
    const head = n < 126 ? Buffer.from([0x80 | op, 0x80 | n]) : n < 65536 ? Buffer.alloc(4) : Buffer.alloc(10);
    if (n >= 126) {
      head[0] = 0x80 | op;
      head[1] = 0x80 | (n < 65536 ? 126 : 127);
      if (n < 65536) head.writeUInt16BE(n, 2);
      else head.writeBigUInt64BE(BigInt(n), 2);
    }
    const mask = randomBytes(4);
    const body = Buffer.from(data);
    for (let i = 0; i < n; i++) body[i] ^= mask[i & 3];
    this.#socket.write(Buffer.concat([head, mask, body]));
  }

  /** @param {Buffer} b */
  #read(b) {
    this.#in = this.#in.length ? Buffer.concat([this.#in, b]) : b;
    while (this.#in.length >= 2) {
      const fin = (this.#in[0] & 0x80) !== 0, op = this.#in[0] & 15;
      let n = this.#in[1] & 127, at = 2;
      if (n === 126) {
        if (this.#in.length < 4) return;
        n = this.#in.readUInt16BE(2);
        at = 4;
      } else if (n === 127) {
        if (this.#in.length < 10) return;
        n = Number(this.#in.readBigUInt64BE(2));
        at = 10;
      }
      if (this.#size + n > MAX_FRAME) return this.#fail(new Error("a message of the server is too long"));
      if (this.#in.length < at + n) return;
      const data = this.#in.subarray(at, at + n);
      this.#in = this.#in.subarray(at + n);
      this.#frame(fin, op, data);
    }
  }

  /**
   * @param {boolean} fin
   * @param {number} op
   * @param {Buffer} data
   */
  #frame(fin, op, data) {
    if (op === 9) return this.#write(10, data);
    if (op === 8) {
      if (data.length >= 2) this.#end = { code: data.readUInt16BE(0), reason: data.toString("utf8", 2) };
      else this.#end = { code: 1005, reason: "" };
      if (this.readyState === 1) this.#write(8, data.subarray(0, 2));
      this.readyState = 2;
      return void this.#socket?.end();
    }
    if (op > 2) return; // a pong
    this.#parts.push(data);
    this.#size += data.length;
    if (!fin) return;
    const text = Buffer.concat(this.#parts).toString("utf8");
    this.#parts = [];
    this.#size = 0;
    if (this.readyState === 1) this.onmessage?.({ data: text });
  }
}

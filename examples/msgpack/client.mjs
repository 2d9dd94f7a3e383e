// Calls an API with a token from brokerd by docs/protocol.md: Node, without a package.
// Usage: node client.mjs GRANT URL, or: … vectors FILE, which reads docs/vectors.json
import { createHash } from "node:crypto";
import net from "node:net";
import { Unfinished, encode, read, replyOf } from "./codec.mjs";
import { conform } from "./conform.mjs";

const MAX_ANSWER = 16 << 20; // bytes

class Client {
  #socket = net.connect(process.env.BROKERD_SOCKET ?? "/run/brokerd/brokerd.sock");
  #waiting = new Map(); // by id: the two functions of a promise
  #sent = 0;
  #unread = Buffer.alloc(0);

  constructor() {
    this.#socket.on("data", (piece) => this.#receive(piece));
    this.#socket.on("error", (error) => this.#fail(error));
    this.#socket.on("close", () => this.#fail(new Error("brokerd closed the connection")));
  }

  /** Sends a request and waits for its answer. */
  call(method, params) {
    const id = ++this.#sent;
    this.#socket.write(encode([0, id, method, [params]]));
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }

  close() {
    this.#socket.end();
  }

  #receive(piece) {
    this.#unread = Buffer.concat([this.#unread, piece]);
    try {
      while (this.#unread.length) {
        const [message, size] = read(this.#unread, MAX_ANSWER);
        this.#unread = this.#unread.subarray(size);
        this.#take(replyOf(message));
      }
    } catch (error) {
      if (!(error instanceof Unfinished)) this.#socket.destroy(error);
    }
  }

  #take({ id, failure, result }) {
    if (id === null) return this.#fail(new Error(failure.message)); // the last word on this connection
    const { resolve, reject } = this.#waiting.get(id) ?? {}; // an event has no id
    this.#waiting.delete(id);
    if (failure) reject?.(new Error(`no token: ${failure.message}`));
    else resolve?.(result);
  }

  #fail(error) {
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}

function refused(grant, token) { // a long token, by its hash
  if (token.length <= 60_000) return { grant, refused: token };
  return { grant, refused_sha256: createHash("sha256").update(token).digest("hex") };
}

function send(url, token) {
  const present = token.present ?? "Authorization: Bearer {access_token}";
  const [name, value] = present.replace("{access_token}", () => token.value).split(": ");
  return fetch(url, { headers: { [name]: value } });
}

async function main(grant, url) {
  const broker = new Client();
  try {
    let token = await broker.call("get", { grant });
    let answer = await send(url, token);
    if (answer.status === 401) { // the API refused the token before its time: report it, once
      token = await broker.call("get", refused(grant, token.value));
      answer = await send(url, token);
    }
    if (answer.status !== 200) throw new Error(`${url} answered ${answer.status}`);
    process.stdout.write(await answer.text());
  } finally {
    broker.close();
  }
}

const [first, second] = process.argv.slice(2);
try {
  await (first === "vectors" ? conform(second) : main(first, second));
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}

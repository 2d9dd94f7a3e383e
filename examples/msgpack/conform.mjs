// Reads docs/vectors.json as a client: what is a message, means what the file says; what is none, is refused.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Unfinished, encode, read, replyOf } from "./codec.mjs";

const MAX_REQUEST = 64 << 10; // bytes: the limit that the vectors are made for

const CHECKS = {
  good(vector, data) {
    const [message, size] = read(data, MAX_REQUEST);
    assert.deepEqual(message, vector.message);
    assert.equal(size, data.length);
    if (vector.kind === "request") assert.deepEqual(encode(message), data);
    else replyOf(message);
  },
  refused(vector, data) {
    assert.deepEqual(encode(read(data, MAX_REQUEST)[0]), data);
  },
  broken(vector, data) {
    assert.throws(() => replyOf(read(data, MAX_REQUEST)[0]), (error) => !(error instanceof Unfinished));
  },
  partial(vector, data) {
    assert.throws(() => read(data, MAX_REQUEST), Unfinished);
  },
};

export function conform(path) {
  const file = JSON.parse(readFileSync(path, "utf8"));
  let checked = 0;
  for (const [group, check] of Object.entries(CHECKS)) {
    for (const vector of file[group].filter(({ to }) => to !== "daemon")) {
      const { hex, times } = vector.repeat ?? { hex: "", times: 0 };
      try {
        check(vector, Buffer.from(vector.hex + hex.repeat(times), "hex"));
      } catch (error) {
        throw new Error(`${group}: ${vector.means}: ${error.message}`);
      }
      checked++;
    }
  }
  console.log(`${checked} vectors`);
}

// Reads {"streams": [base64]} and the sizes of chunks; writes what client.js's parser makes of them.
import { readFileSync } from "node:fs";

import { World } from "./world.mjs";

const { streams, sizes } = JSON.parse(readFileSync(0, "utf8"));
const { Parser } = new World().page.SSEBroker;
const read = (bytes, size) => {
  const parser = new Parser();
  const events = [];
  for (let at = 0; at < bytes.length; at += size) {
    events.push(...parser.feed(bytes.subarray(at, at + size)));
  }
  return { events: events.map(({ event, data, id }) => [event, data, id]),
    id: parser.lastEventId, retry: parser.retry };
};
process.stdout.write(JSON.stringify(streams.map((text) =>
  sizes.map((size) => read(Buffer.from(text, "base64"), size)))));

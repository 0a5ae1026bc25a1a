// A page without a browser: client.js runs in it with a clock, chance and a network of the tests'.
import { readFileSync } from "node:fs";

const SOURCE = readFileSync(new URL("../../../sse_broker/web/client.js", import.meta.url), "utf8");
const encoder = new TextEncoder();

export class World {
  // script is the one that the page has: its src, and what sse_script() has written into it.
  constructor(script = null) {
    this.now = 1_000_000;
    this.offset = 0;                       // by how much somebody set the clock
    this.random = 0.5;
    this.timers = [];
    this.errors = [];                      // what a page's console has
    this.requests = [];                    // {url, init, at}
    this.answers = [];                     // for each request to come; the last one stays
    this.page = new EventTarget();
    this.page.reportError = (error) => this.errors.push(error);
    this.page.document = Object.assign(new EventTarget(), {
      hidden: false,
      currentScript: script?.src ? script : null,
      querySelector: () => (script?.src ? null : script),
    });
    let number = 0;
    const fakes = {
      globalThis: this.page,
      fetch: (url, init) => this.#fetch(url, init),
      setTimeout: (act, wait = 0) => {
        this.timers.push({ number: ++number, act, at: this.now + wait });
        return number;
      },
      clearTimeout: (gone) => { this.timers = this.timers.filter((timer) => timer.number !== gone); },
      Date: { now: () => this.now + this.offset, parse: Date.parse },
      Math: Object.assign(Object.create(Math), { random: () => this.random }),
    };
    new Function(...Object.keys(fakes), SOURCE)(...Object.values(fakes));
  }

  // Connects; what happens is kept in .states and .events.  Options go through.
  async connect(options = {}, url = "/stream") {
    this.states = [];
    this.events = [];
    this.stream = this.page.SSEBroker.connect(url, {
      onState: (state, detail) => this.states.push({ state, ...detail }),
      onEvent: (event) => this.events.push(event),
      ...options,
    });
    await this.pass(0);
    return this.stream;
  }

  // Lets so many milliseconds pass, one timer after the other.
  async pass(wait) {
    const end = this.now + wait;
    for (let steps = 0; ; steps++) {
      if (steps > 1000) throw new Error("it never comes to rest");
      await settled();
      const [next] = this.timers.filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at);
      if (!next) break;
      this.timers = this.timers.filter((timer) => timer !== next);
      this.now = Math.max(this.now, next.at);
      next.act();
    }
    this.now = end;
    await settled();
  }

  // How long the stream says that it waits now, in seconds.
  get wait() { return this.states.at(-1).wait; }

  async #fetch(url, init) {
    const { signal } = init;
    this.requests.push({ url, init, at: this.now });
    const answer = this.answers.length > 1 ? this.answers.shift() : this.answers[0];
    const response = await answer(signal);
    if (signal?.aborted) throw signal.reason;
    return response;
  }
}

async function settled() {
  for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
}

export const refusal = (status, headers = {}, body = null) => () => new Response(body, { status, headers });

export const unreachable = () => Promise.reject(new TypeError("Failed to fetch"));

export const nothing = (signal) => new Promise((_, reject) => {
  signal.addEventListener("abort", () => reject(signal.reason));
});

// A stream that the test writes to: await live.write("data: x\n\n"), live.end(), live.fail().
// A deaf one goes on when it is aborted.
export function live({ deaf = false } = {}) {
  const answer = (signal) => {
    const body = new ReadableStream({ start: (controller) => { answer.body = controller; } });
    signal.addEventListener("abort", () => {
      answer.aborted = true;
      if (deaf) return;
      try { answer.body.error(signal.reason); } catch { /* it had ended */ }
    });
    return new Response(body, { headers: { "Content-Type": "text/event-stream; charset=utf-8" } });
  };
  answer.write = async (text) => { answer.body.enqueue(encoder.encode(text)); await settled(); };
  answer.end = async () => { answer.body.close(); await settled(); };
  answer.fail = async () => { answer.body.error(new TypeError("network error")); await settled(); };
  return answer;
}

// A stream that is all there at once, and ends.
export const whole = (text) => () =>
  new Response(text, { headers: { "Content-Type": "text/event-stream" } });

// sse_broker in the browser: keeps a page connected to its stream.
//
//   <script src="/sse/client.js"></script>         or, in a module: import "/sse/client.js";
//
//   const stream = SSEBroker.connect("/sse/stream?topics=news", {
//     onState: (state, { reason }) => show(state, reason),
//     onReset: () => location.reload(),
//   });
//   stream.addEventListener("paid", (event) => show(event.data));
//
// A native EventSource gives up for good at the first answer that is not 200, and
// cannot see what the answer was.  This reads the stream with fetch() instead.
//
//   connecting ──first event──▶ open ──end, silence──▶ waiting ──▶ connecting
//       ├──── failure, refusal for now ──────────────────▲
//       └──── 204, 400, 401, 403, 410 ──▶ closed ◀── close(), from any state
//
// Every path out of a connection goes through #finish(), which takes the first one
// only: what an older connection still has to say is dropped.
(() => {
  "use strict";

  const FINAL = new Set([204, 400, 401, 403, 410]);  // answers that no repetition changes
  const MAX_WAIT = 30_000;                 // ms; the most that failures make the wait
  const MIN_RETRY = 1_000;                 // ms; what the server's retry: may be, as the broker
  const MAX_RETRY = 60_000;                //   itself keeps it; 0 would ask without pause
  const SILENCE = 2.5;                     // heartbeats that may be missed
  const DAY = 86_400_000;                  // ms; setTimeout() takes 24 days at most
  const DEFAULTS = {
    credentials: "same-origin",
    headers: {},
    heartbeat: 30,
    lastEventId: "",
    onEvent: null,
    onReset: null,
    onState: null,
    renew: null,
  };

  // Bytes in any chunks to events, by the HTML standard, 9.2.6.  One per connection;
  // lastEventId is that of the last complete event, and begins as the one before had it.
  class Parser {
    #decoder = new TextDecoder();          // drops one leading BOM, as the standard wants
    #afterCR = false;
    #pieces = [];                          // of the unfinished line
    #data = [];
    #event = "";
    #id;

    constructor(lastEventId = "") {
      this.lastEventId = this.#id = lastEventId;
      this.retry = null;                   // ms, once it was said
    }

    // Returns the events that these bytes complete: {event, data, id}.
    feed(bytes) {
      let text = this.#decoder.decode(bytes, { stream: true });
      if (!text) return [];
      if (this.#afterCR && text[0] === "\n") text = text.slice(1);  // of a CRLF cut in two
      this.#afterCR = text.endsWith("\r");
      const lines = text.split(/\r\n|\r|\n/);
      const rest = lines.pop();
      if (lines.length) {
        lines[0] = this.#pieces.join("") + lines[0];
        this.#pieces = [];
      }
      if (rest) this.#pieces.push(rest);
      return lines.map((line) => this.#line(line)).filter(Boolean);
    }

    #line(line) {
      if (!line) return this.#dispatch();
      const colon = line.indexOf(":");
      const name = colon < 0 ? line : line.slice(0, colon);
      let value = colon < 0 ? "" : line.slice(colon + 1);
      if (value[0] === " ") value = value.slice(1);
      if (name === "data") this.#data.push(value);
      else if (name === "event") this.#event = value;
      else if (name === "id" && !value.includes("\0")) this.#id = value;
      else if (name === "retry" && /^[0-9]+$/.test(value)) this.retry = Number(value);
      return null;
    }

    #dispatch() {
      this.lastEventId = this.#id;
      const [event, data] = [this.#event || "message", this.#data];
      [this.#event, this.#data] = ["", []];
      return data.length ? { event, data: data.join("\n"), id: this.#id } : null;
    }
  }

  class Stream extends EventTarget {
    #options;
    #url;
    #headers;
    #heartbeat;                            // seconds; 0 is no watch over silence
    #lastEventId;
    #state = "connecting";
    #reason = "";
    #retry = 3_000;                        // ms
    #failures = 0;                         // since the stream was last open
    #connection = null;                    // the AbortController of the one that counts
    #farewell = null;                      // the close or error event that was the last one
    #renewed = false;                      // the credentials of this try are fresh
    #seen = 0;                             // when bytes last came
    #notBefore = 0;                        // the server asked not to be asked sooner
    #suspended = false;                    // the page is in the back/forward cache
    #timer = 0;
    #watchdog = 0;
    #listening = new AbortController();

    constructor(url, options = {}) {
      super();
      for (const name of Object.keys(options)) {
        if (!(name in DEFAULTS)) throw new TypeError(`SSEBroker has no option ${name}`);
      }
      this.#options = { ...DEFAULTS, ...options };
      this.#url = String(url);
      this.#headers = this.#options.headers;
      this.#heartbeat = this.#options.heartbeat;
      this.#lastEventId = this.#options.lastEventId;
      this.#listen();
      this.#timer = setTimeout(() => this.#run());  // not now: the page has no listeners yet
    }

    get state() { return this.#state; }
    get reason() { return this.#reason; }
    get lastEventId() { return this.#lastEventId; }

    // Ends the stream for good.  No event comes after it.
    close() {
      if (this.#state !== "closed") this.#stop("closed by the page");
    }

    #listen() {
      const { signal } = this.#listening;
      const on = (target, type, act) => target?.addEventListener?.(type, act, { signal });
      on(globalThis, "pagehide", () => this.#suspend());
      on(globalThis, "pageshow", () => this.#resume());
      on(globalThis, "online", () => this.#wake());
      on(globalThis.document, "visibilitychange", () => this.#wake());
      on(globalThis.document, "resume", () => this.#wake());
    }

    // -- one connection ---------------------------------------------------------

    async #run() {
      const mine = this.#connection = new AbortController();
      clearTimeout(this.#timer);
      this.#farewell = null;
      this.#seen = Date.now();
      this.#become("connecting");
      this.#watch();
      let outcome;
      try {
        if (mine === this.#connection) outcome = await this.#connect(mine);
      } catch (error) {
        outcome = { reason: String(error?.message || error) };
      }
      this.#finish(mine, outcome);
    }

    // Returns how the connection came to its end: {reason, status, final, again, least}.
    async #connect(mine) {
      const response = await fetch(this.#url, {
        headers: { ...this.#headers, ...cursor(this.#lastEventId), Accept: "text/event-stream" },
        credentials: this.#options.credentials,
        cache: "no-store",
        signal: mine.signal,
      });
      this.#seen = Date.now();
      const { status } = response;
      if (status === 401 && this.#options.renew && !this.#renewed) return this.#renew(response);
      if (FINAL.has(status)) return { final: true, status, reason: await told(response) };
      if (status !== 200) return { status, reason: await told(response), least: retryAfter(response) };
      const type = response.headers.get("Content-Type") || "nothing";
      if (/^text\/event-stream\s*(;|$)/i.test(type)) return this.#read(mine, response.body.getReader());
      return { status, reason: `the answer is ${type}, not text/event-stream` };
    }

    async #renew(response) {
      const reason = await told(response);
      const answer = await this.#options.renew({ status: response.status, reason });
      if (!answer) return { final: true, status: response.status, reason };
      const isURL = typeof answer === "string" || answer instanceof URL;
      const { url, headers } = isURL ? { url: answer } : answer;  // true has neither
      this.#url = String(url ?? this.#url);
      this.#headers = headers ?? this.#headers;
      return { again: true };
    }

    async #read(mine, reader) {
      const parser = new Parser(this.#lastEventId);
      for (;;) {
        const { done, value } = await reader.read();
        if (mine !== this.#connection) return {};
        if (done) return { reason: "the stream ended" };
        this.#seen = Date.now();
        const events = parser.feed(value);
        if (parser.retry !== null) this.#retry = Math.min(MAX_RETRY, Math.max(MIN_RETRY, parser.retry));
        for (const { event, data, id } of events) {
          this.#take(mine, event, data, id);
          if (mine !== this.#connection) return {};
        }
        this.#lastEventId = parser.lastEventId;  // an id may come without an event
      }
    }

    #take(mine, type, text, id) {
      const data = parsed(text);
      this.#lastEventId = id;
      this.#farewell = type === "close" || type === "error" ? { type, data } : null;
      if (type === "welcome" && data?.heartbeat > 0) {
        this.#heartbeat = data.heartbeat;
        this.#watch();
      }
      if (type !== "error") {              // that one says that there was no room
        this.#failures = 0;
        this.#become("open");
      }
      if (mine !== this.#connection) return;  // a callback closed it
      const event = Object.assign(new MessageEvent(type, { data, lastEventId: id }), { text });
      this.#call(this.#options.onEvent, event);
      if (type === "reset") this.#call(this.#options.onReset, data);
      if (mine === this.#connection) this.dispatchEvent(event);
    }

    // Nothing at all for too long: the connection is dead, whatever the network says.
    #watch() {
      clearTimeout(this.#watchdog);
      if (!this.#connection || !this.#heartbeat) return;
      const now = Date.now();
      this.#seen = Math.min(this.#seen, now);  // the clock may have been set back
      const allowed = SILENCE * this.#heartbeat;
      const left = this.#seen + allowed * 1000 - now;
      if (left > 0) this.#watchdog = setTimeout(() => this.#watch(), Math.min(left, DAY));
      else this.#finish(this.#connection, { reason: `silent for ${allowed} s` });
    }

    // -- what comes after it ----------------------------------------------------

    #finish(connection, outcome) {
      if (connection !== this.#connection) return;
      this.#drop();
      if (outcome.final) this.#stop(outcome.reason, outcome.status);
      else if (!outcome.again) this.#wait(outcome);
      else {
        this.#renewed = true;              // refused again, the credentials are no good
        this.#run();
      }
    }

    // What the server asked for is kept as it is; failures wait by full jitter, so that
    // the clients of a server that went away do not come back to it in step.
    #wait({ reason, status = 0, least = 0 }) {
      const bye = this.#farewell;
      this.#renewed = false;
      const asked = bye ? this.#retry : least;
      const most = Math.min(Math.max(MAX_WAIT, this.#retry), this.#retry * 2 ** this.#failures);
      const wait = bye ? asked : asked + Math.random() * most;
      if (!bye) this.#failures += 1;
      this.#notBefore = Date.now() + asked;
      this.#timer = setTimeout(() => this.#run(), wait);
      const said = bye && (bye.data?.reason || bye.data?.error);
      this.#become("waiting", { reason: said || reason, status, wait: wait / 1000 });
    }

    #stop(reason, status = 0) {
      this.#drop();
      this.#listening.abort();
      this.#become("closed", { reason, status });
    }

    #drop() {
      const connection = this.#connection;
      this.#connection = null;
      clearTimeout(this.#watchdog);
      clearTimeout(this.#timer);
      connection?.abort();
    }

    // -- the page ---------------------------------------------------------------

    // A page with an open connection may not enter the back/forward cache.
    #suspend() {
      this.#suspended = true;
      this.#drop();
      this.#become("waiting", { reason: "the page is away" });
    }

    #resume() {
      if (!this.#suspended) return;
      this.#suspended = false;
      this.#run();
    }

    // Timers of a hidden page come late, those of a sleeping machine not at all.
    #wake() {
      if (globalThis.document?.hidden || this.#suspended) return;
      if (this.#connection) this.#watch();
      else if (this.#state === "waiting" && Date.now() >= this.#notBefore) this.#run();
    }

    #become(state, { reason = "", status = 0, wait = 0 } = {}) {
      this.#reason = reason;
      if (state === this.#state) return;
      this.#state = state;
      this.#call(this.#options.onState, state, { reason, status, wait });
    }

    // What a callback of the page throws is shown, and stops nothing here.
    #call(callback, ...values) {
      try {
        callback?.(...values);
      } catch (error) {
        setTimeout(() => { throw error; });
      }
    }
  }

  // A header holds bytes: the id goes out as UTF-8 (HTML standard, 9.2.2).
  function cursor(id) {
    return id ? { "Last-Event-ID": String.fromCharCode(...new TextEncoder().encode(id)) } : {};
  }

  function parsed(text) {
    try {
      return JSON.parse(text);
    } catch {
      return text;
    }
  }

  // The reason of a refusal: its status, and what the library says with it.
  async function told(response) {
    const words = `${response.status} ${response.statusText}`.trim();
    const isJSON = (response.headers.get("Content-Type") || "").startsWith("application/json");
    const body = isJSON ? await response.json().catch(() => null) : null;
    return typeof body?.error === "string" ? `${words}: ${body.error}` : words;
  }

  // Milliseconds; RFC 9110, 10.2.3: seconds or a date.
  function retryAfter(response) {
    const value = response.headers.get("Retry-After") || "";
    const wait = /^\d+$/.test(value) ? value * 1000 : Date.parse(value) - Date.now();
    return Math.min(MAX_RETRY, Math.max(0, wait || 0));
  }

  const connect = (url, options) => new Stream(url, options);
  globalThis.SSEBroker = Object.freeze({ connect, Parser });
})();

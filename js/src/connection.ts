// Keeps one stream connected: asks, reads, waits, asks again from where it was.
//
//   connecting ──first event──▶ open ──end, silence──▶ waiting ──▶ connecting
//       ├──── failure, refusal for now ──────────────────▲
//       └──── 204, 400, 401, 403, 410 ──▶ closed ◀── close(), from any state
//
// Every path out of a connection goes through #finish(), which takes the first one
// only: what an older connection still has to say is dropped.
import { Parser, type Wire } from "./parser.js";

export type State = "connecting" | "open" | "waiting" | "closed";

/** What is known beside the state: why, the status of the answer, and the seconds until the next try. */
export interface Detail {
  readonly reason: string;
  readonly status: number;
  readonly wait: number;
}

export const NOTHING: Detail = { reason: "", status: 0, wait: 0 };

/** Where to ask, and with which headers; renewed in place, for all connections to come. */
export interface Target {
  url: string;
  headers: Record<string, string>;
}

/** What a page may answer to a 401: another URL, other headers, true to try again, or nothing to end. */
export type Renewed = string | URL | { url?: string | URL; headers?: Record<string, string> } | boolean | null | undefined;
export type Renew = (refused: { status: number; reason: string }) => Renewed | Promise<Renewed>;

export interface Wiring {
  readonly target: Target;
  readonly credentials: RequestCredentials;
  readonly heartbeat: number;              // seconds until the server says how often; 0 is no watch over silence
  readonly renew: Renew | null;
  readonly lastEventId: string;
  readonly url: () => string | Promise<string>;
  readonly onState: (state: State, detail: Detail) => void;
  readonly onEvent: (wire: Wire) => void;
  readonly onLive: () => void;             // all that was missed has been told
}

interface Outcome {
  reason?: string;
  status?: number;
  least?: number;
  final?: boolean;
  again?: boolean;
}

const FINAL = new Set([204, 400, 401, 403, 410]);  // answers that no repetition changes
const MAX_WAIT = 30_000;                   // ms; the most that failures make the wait
const MIN_RETRY = 1_000;                   // ms; what the server's retry: may be, as the broker
const MAX_RETRY = 60_000;                  //   itself keeps it; 0 would ask without pause
const SILENCE = 2.5;                       // heartbeats that may be missed
const PATIENCE = 5;                        // seconds without a byte, after which the page hears of it
const DAY = 86_400_000;                    // ms; setTimeout() takes 24 days at most

export class Connection {
  #wiring: Wiring;
  #heartbeat: number;
  #lastEventId: string;
  #state: State | "" = "";
  #retry = 3_000;                          // ms
  #failures = 0;                           // since the stream was last open
  #connection: AbortController | null = null;  // of the one that counts
  #farewell: { said: string } | null = null;  // the close or error event that was the last one
  #renewed = false;                        // the credentials of this try are fresh
  #live = false;                           // onLive was told
  #retained = -1;                          // retained messages that are still to come; 0 after the last
  #seen = 0;                               // when bytes last came
  #notBefore = 0;                          // the server asked not to be asked sooner
  #timer: ReturnType<typeof setTimeout> | undefined;
  #watchdog: ReturnType<typeof setTimeout> | undefined;
  #hint: ReturnType<typeof setTimeout> | undefined;
  #due = Infinity;                         // when the wait is over

  constructor(wiring: Wiring) {
    this.#wiring = wiring;
    this.#heartbeat = wiring.heartbeat;
    this.#lastEventId = wiring.lastEventId;
    void this.#run();
  }

  get lastEventId(): string { return this.#lastEventId; }

  close(): void {
    this.#state = "closed";
    this.#drop();
  }

  /** Asks anew, from where it is. */
  restart(): void {
    this.#drop();
    void this.#run();
  }

  /** Timers of a hidden page come late, those of a sleeping machine not at all. */
  wake(): void {
    if (this.#connection) this.#watch();
    else if (this.#state === "waiting" && Date.now() >= this.#notBefore) void this.#run();
  }

  /** As wake(), but leaves a wait that is not over. */
  nudge(): void {
    if (this.#connection || Date.now() >= this.#due) this.wake();
  }

  // -- one connection ---------------------------------------------------------

  async #run(): Promise<void> {
    const mine = this.#connection = new AbortController();
    clearTimeout(this.#timer);
    this.#farewell = null;
    this.#seen = Date.now();
    this.#become("connecting");
    this.#watch();
    this.#hint = setTimeout(() => this.#warn(mine), PATIENCE * 1000);
    let outcome: Outcome = {};
    try {
      if (this.#counts(mine)) outcome = await this.#connect(mine);
    } catch (error) {
      outcome = { reason: String((error as Error | null)?.message ?? error) };
    }
    this.#finish(mine, outcome);
  }

  // Returns how the connection came to its end.
  async #connect(mine: AbortController): Promise<Outcome> {
    const { target, credentials, renew } = this.#wiring;
    const url = await this.#wiring.url();
    if (!this.#counts(mine)) return {};
    const response = await fetch(url, {
      headers: { ...target.headers, ...cursor(this.#lastEventId), Accept: "text/event-stream" },
      credentials,
      cache: "no-store",
      signal: mine.signal,
    });
    this.#seen = Date.now();
    const { status } = response;
    if (status === 401 && renew && !this.#renewed) return this.#renew(renew, response);
    if (FINAL.has(status)) return { final: true, status, reason: await told(response) };
    if (status !== 200) return { status, reason: await told(response), least: retryAfter(response) };
    const type = response.headers.get("Content-Type") ?? "nothing";
    if (/^text\/event-stream\s*(;|$)/i.test(type) && response.body) return this.#read(mine, response.body.getReader());
    return { status, reason: `the answer is ${type}` };
  }

  async #renew(renew: Renew, response: Response): Promise<Outcome> {
    const reason = await told(response);
    const answer = await renew({ status: response.status, reason });
    if (!answer) return { final: true, status: response.status, reason };
    const { target } = this.#wiring;
    if (typeof answer === "string" || answer instanceof URL) target.url = String(answer);
    else if (answer !== true) {
      target.url = String(answer.url ?? target.url);
      target.headers = answer.headers ?? target.headers;
    }
    return { again: true };
  }

  async #read(mine: AbortController, reader: ReadableStreamDefaultReader<Uint8Array>): Promise<Outcome> {
    const parser = new Parser(this.#lastEventId);
    for (;;) {
      const { done, value } = await reader.read();
      if (!this.#counts(mine)) return {};
      if (done) return { reason: "the stream ended" };
      this.#seen = Date.now();
      clearTimeout(this.#hint);
      const events = parser.feed(value);
      if (parser.retry !== null) this.#retry = Math.min(MAX_RETRY, Math.max(MIN_RETRY, parser.retry));
      for (const wire of events) {
        this.#take(mine, wire);
        if (!this.#counts(mine)) return {};
      }
      this.#lastEventId = parser.lastEventId;  // an id may come without an event
      if (parser.live) this.#say();
      if (!this.#counts(mine)) return {};
    }
  }

  #take(mine: AbortController, wire: Wire): void {
    const { event, id } = wire;
    this.#lastEventId = id;
    const said = (/^(welcome|close|error)$/.test(event) ? Object(parsed(wire.data)) : {}) as Record<string, string | undefined>;
    this.#farewell = event === "close" || event === "error" ? { said: said["reason"] ?? said["error"] ?? "" } : null;
    if (event === "welcome" && Number(said["heartbeat"]) > 0) {
      this.#heartbeat = Number(said["heartbeat"]);
      this.#watch();
    }
    if (event !== "error") {               // that one says that there was no room
      this.#failures = 0;
      this.#become("open");
    }
    if (!this.#counts(mine)) return;       // a callback closed it
    this.#wiring.onEvent(wire);
    if (event !== "welcome") this.#retained -= 1;
    else if (!said["resumed"]) this.#retained = Number(said["retained"] ?? 0);
    if (this.#retained === 0 && this.#counts(mine)) this.#say();
  }

  #say(): void {
    if (this.#live) return;
    this.#live = true;
    this.#wiring.onLive();
  }

  // Nothing at all for too long: the connection is dead, whatever the network says.
  #watch(): void {
    clearTimeout(this.#watchdog);
    if (!this.#connection || !this.#heartbeat) return;
    const now = Date.now();
    this.#seen = Math.min(this.#seen, now);  // the clock may have been set back
    const allowed = SILENCE * this.#heartbeat;
    const left = this.#seen + allowed * 1000 - now;
    if (left > 0) this.#watchdog = setTimeout(() => this.#watch(), Math.min(left, DAY));
    else this.#finish(this.#connection, { reason: `silent for ${allowed} s` });
  }

  // Most often a proxy buffers, or the browser has its six connections to this host (HTTP/1.1) in use.
  #warn(mine: AbortController): void {
    if (!this.#counts(mine)) return;
    this.#wiring.onState("connecting", { ...NOTHING, reason: `nothing has come through for ${PATIENCE} s; is a proxy buffering?` });
  }

  // -- what comes after it ----------------------------------------------------

  #finish(connection: AbortController, outcome: Outcome): void {
    if (!this.#counts(connection)) return;
    this.#drop();
    const { reason = "", status = 0 } = outcome;
    if (outcome.final) this.#become("closed", { ...NOTHING, reason, status });
    else if (!outcome.again) this.#wait(outcome);
    else {
      this.#renewed = true;                // refused again, the credentials are no good
      void this.#run();
    }
  }

  // What the server asked for is kept as it is; failures wait by full jitter, so that
  // the clients of a server that went away do not come back to it in step.
  #wait({ reason = "", status = 0, least = 0 }: Outcome): void {
    const bye = this.#farewell;
    this.#renewed = false;
    const asked = bye ? this.#retry : least;
    const most = Math.min(Math.max(MAX_WAIT, this.#retry), this.#retry * 2 ** this.#failures);
    const wait = bye ? asked : asked + Math.random() * most;
    if (!bye) this.#failures += 1;
    this.#notBefore = Date.now() + asked;
    this.#due = Date.now() + wait;
    this.#timer = setTimeout(() => void this.#run(), wait);
    this.#become("waiting", { reason: bye?.said || reason, status, wait: wait / 1000 });
  }

  #counts(connection: AbortController): boolean {
    return connection === this.#connection;
  }

  #drop(): void {
    const connection = this.#connection;
    this.#connection = null;
    this.#due = Infinity;
    for (const timer of [this.#watchdog, this.#timer, this.#hint]) clearTimeout(timer);
    connection?.abort();
  }

  #become(state: State, detail = NOTHING): void {
    if (state === this.#state) return;
    this.#state = state;
    this.#wiring.onState(state, detail);
  }
}

/** Whether an event with this id is a retained one, which says how things stand and is no news: the
 * log's own form, which no sender may give, with a mark. */
export const retained = (id: string): boolean => /^[\da-f]{12}-(\d+|[\w-]{24}|[\da-f]{32})\.r\d+$/.test(id);

export function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

// A header holds bytes: the id goes out as UTF-8 (HTML standard, 9.2.2).
function cursor(id: string): Record<string, string> {
  return id ? { "Last-Event-ID": String.fromCharCode(...new TextEncoder().encode(id)) } : {};
}

// The reason of a refusal: its status, and what the library says with it.
async function told(response: Response): Promise<string> {
  const words = `${response.status} ${response.statusText}`.trim();
  const isJSON = (response.headers.get("Content-Type") ?? "").startsWith("application/json");
  const body: unknown = isJSON ? await response.json().catch(() => null) : null;
  const error = (body as { error?: unknown } | null)?.error;
  return typeof error === "string" ? `${words}: ${error}` : words;
}

// Milliseconds; RFC 9110, 10.2.3: seconds or a date.
function retryAfter(response: Response): number {
  const value = response.headers.get("Retry-After") ?? "";
  const wait = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Math.min(MAX_RETRY, Math.max(0, wait || 0));
}

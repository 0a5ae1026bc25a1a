// What a page has in its hands: events, handlers, topics, the state.
import { NOTHING, parsed, retained, type Detail, type Renew, type State, type Target } from "./connection.js";
import type { Wire } from "./parser.js";
import { Source, groupOf } from "./source.js";
import { matches, topicsOf } from "./topics.js";

/** The data of the events, by their names: `connect<{ paid: Order }>()`. */
export type Events = Record<string, any>;  // eslint-disable-line @typescript-eslint/no-explicit-any

/** What the library says itself. */
export interface LibraryEvents {
  welcome: { client_id: string; resumed: boolean; heartbeat: number };
  heartbeat: Record<string, unknown>;
  reset: { reason: string };
  dropped: { count: number };
  revoked: { topics: string[] };
  error: { error: string };
  close: { reason: string };
}

/** One event: its data as JSON has it, or as text where it is none. */
export interface StreamEvent<Data = unknown> extends MessageEvent<Data> {
  /** The data as it was on the wire. */
  readonly text: string;
  /** The topics that it was sent to; none for what was sent to the user, or to all. */
  readonly topics: readonly string[];
  /** It says how things stand, and is no news. */
  readonly retained: boolean;
}

export type Handler<Data> = (event: StreamEvent<Data>) => void;
export type DataOf<E, K> = K extends keyof E ? E[K] : K extends keyof LibraryEvents ? LibraryEvents[K] : unknown;

export interface Options {
  /** Names and patterns; without it those in the URL's query. */
  topics?: Iterable<string>;
  /** One stream for all tabs of the same user; a text keeps groups of tabs apart. Default: where the browser can. */
  share?: boolean | string;
  credentials?: RequestCredentials;
  headers?: Record<string, string>;
  /** Seconds between heartbeats until the server says it; 0 is no watch over silence. Default 30. */
  heartbeat?: number;
  /** Begin after this id. Default: the one that `sse_script()` has put into the page. */
  lastEventId?: string;
  /** Every event, also the library's. */
  onEvent?: ((event: StreamEvent) => void) | null;
  /** What was missed cannot be proved to be all: read the state anew. */
  onReset?: ((data: { reason: string }) => void) | null;
  /** From the first moment; also when only the reason is another. */
  onState?: ((state: State, detail: Detail) => void) | null;
  /** Asked after a 401. */
  renew?: Renew | null;
  /** Closes the stream. */
  signal?: AbortSignal | null;
}

const DEFAULTS = {
  topics: null as Iterable<string> | null,
  share: null as boolean | string | null,
  credentials: "same-origin" as RequestCredentials,
  headers: {} as Record<string, string>,
  heartbeat: 30,
  lastEventId: "",
  onEvent: null as Options["onEvent"],
  onReset: null as Options["onReset"],
  onState: null as Options["onState"],
  renew: null as Renew | null,
  signal: null as AbortSignal | null,
};

/** The stream of one page; made by connect(). */
export class Stream<E extends Events = Events> extends EventTarget {
  /** Resolves when the stream is open for the first time; rejects if it is closed before. */
  readonly opened: Promise<void>;
  #options: typeof DEFAULTS;
  #target: Target;
  #topics: ReadonlySet<string>;
  #source: Source | null = null;
  #lastEventId: string;
  #state: State = "connecting";
  #detail = NOTHING;
  #suspended = false;                      // the page is in the back/forward cache, or frozen
  #handlers = new Set<{ event: string; topic: string; act: Handler<any> }>();  // eslint-disable-line @typescript-eslint/no-explicit-any
  #listening = new AbortController();
  #settle: [() => void, (error: Error) => void] = [() => undefined, () => undefined];

  constructor(url: string, options: Options = {}) {
    super();
    for (const name of Object.keys(options)) {
      if (!(name in DEFAULTS)) throw new TypeError(`no option ${name}`);
    }
    this.#options = { ...DEFAULTS, ...options };
    this.#target = { url, headers: this.#options.headers };
    this.#topics = new Set(this.#options.topics ?? topicsOf(url));
    this.#lastEventId = this.#options.lastEventId;
    this.opened = new Promise((open, fail) => { this.#settle = [open, fail]; });
    this.opened.catch(() => undefined);    // who does not ask is not told
    this.#listen();
    setTimeout(() => this.#begin());       // not now: the page has no listeners yet
  }

  get state(): State { return this.#state; }
  get reason(): string { return this.#detail.reason; }
  get lastEventId(): string { return this.#source?.lastEventId ?? this.#lastEventId; }
  get topics(): string[] { return [...this.#topics]; }

  /** Calls `act` for each event of this name ("*": of any), on a topic that matches; returns what ends that. */
  on<K extends (keyof E & string) | keyof LibraryEvents | (string & {})>(
    event: K, act: Handler<DataOf<E, K>>, { topic = "" }: { topic?: string } = {},
  ): () => void {
    const entry = { event: event, topic, act };
    this.#handlers.add(entry);
    return () => void this.#handlers.delete(entry);
  }

  /** Adds topics to the live stream; resolves once nothing that is sent to them can be missed. */
  subscribe(...topics: string[]): Promise<void> {
    return this.#change(new Set([...this.#topics, ...topics]));
  }

  /** Takes topics from the live stream; no event of theirs comes after the call. */
  unsubscribe(...topics: string[]): Promise<void> {
    return this.#change(new Set([...this.#topics].filter((topic) => !topics.includes(topic))));
  }

  /** How many tabs of this browser hear the same stream, this one among them. */
  async tabs(): Promise<number> {
    return await this.#source?.tabs() ?? 1;
  }

  /** Ends the stream for good. No event comes after it. */
  close(): void {
    this.#end("closed");
  }

  async #change(topics: ReadonlySet<string>): Promise<void> {
    this.#topics = topics;
    await this.#source?.change(topics);
  }

  // -- the source -------------------------------------------------------------

  #begin(): void {
    if (this.#state === "closed" || this.#source || this.#suspended) return;
    this.#call(this.#options.onState, this.#state, this.#detail);
    const { share } = this.#options;
    // Who has Web Locks has BroadcastChannel. What `since` asks for comes with the first messages of an own stream, and by no other.
    const can = !/[?&]since=/.test(this.#target.url) && (globalThis.navigator as Navigator | undefined)?.locks;
    if (can && (share ?? Boolean(globalThis.document))) {
      void groupOf(this.#target, this.#options.credentials, String(share ?? true)).then((name) => this.#open(name), () => this.#open(""));
    } else {
      this.#open("");
    }
  }

  #open(name: string): void {
    if (this.#state === "closed" || this.#suspended || this.#source) return;
    this.#source = new Source(name, { ...this.#options, target: this.#target }, this.#topics, this.#lastEventId, {
      state: (state, detail) => this.#become(state, detail),
      event: (wire) => this.#take(wire),
    });
  }

  #take({ event: type, data: text, id, topics }: Wire): void {
    if (this.#state === "closed" || this.#suspended) return;
    const data = parsed(text);
    const facts = { text, topics, retained: retained(id) };
    const event = Object.assign(new MessageEvent(type, { data, lastEventId: id }), facts) as StreamEvent;
    this.#call(this.#options.onEvent, event);
    if (type === "reset") this.#call(this.#options.onReset, data as { reason: string });
    for (const { event: wanted, topic, act } of [...this.#handlers]) {
      const isWanted = (wanted === "*" || wanted === type) && (!topic || topics.some((one) => matches(topic, one)));
      if (isWanted && !this.#isClosed()) this.#call(act, event);
    }
    if (!this.#isClosed()) this.dispatchEvent(event);
  }

  #isClosed(): boolean {
    return this.#state === "closed";
  }

  #become(state: State, detail: Detail): void {
    if (this.#state === "closed") return;
    if (state === "closed") {
      this.#end(detail.reason, detail.status);
      return;
    }
    const isNew = state !== this.#state || detail.reason !== this.#detail.reason;
    [this.#state, this.#detail] = [state, detail];
    if (state === "open") this.#settle[0]();
    if (isNew) this.#call(this.#options.onState, state, detail);
  }

  #end(reason: string, status = 0): void {
    if (this.#state === "closed") return;
    [this.#state, this.#detail] = ["closed", { ...NOTHING, reason, status }];
    this.#drop();
    this.#listening.abort();
    this.#settle[1](new Error(reason));
    this.#call(this.#options.onState, "closed", this.#detail);
  }

  #drop(): void {
    this.#lastEventId = this.lastEventId;
    this.#source?.close();
    this.#source = null;
  }

  // -- the page ---------------------------------------------------------------

  #listen(): void {
    const { signal } = this.#listening;
    const on = (target: Partial<EventTarget> | undefined | null, type: string, act: () => void): void =>
      target?.addEventListener?.(type, act, { signal });
    on(globalThis, "pagehide", () => this.#suspend());
    on(globalThis, "pageshow", () => this.#resume());
    on(globalThis, "online", () => this.#wake());
    on(globalThis.document, "visibilitychange", () => this.#wake());
    on(globalThis.document, "freeze", () => this.#suspend());
    on(globalThis.document, "resume", () => this.#resume());
    const given = this.#options.signal;
    if (given?.aborted) this.#end("aborted");
    on(given, "abort", () => this.#end("aborted"));
  }

  // A page with an open connection may not enter the back/forward cache.
  #suspend(): void {
    if (this.#suspended) return;
    this.#suspended = true;
    this.#drop();
    this.#become("waiting", { ...NOTHING, reason: "the page is away" });
  }

  #resume(): void {
    if (!this.#suspended) return this.#wake();
    this.#suspended = false;
    this.#become("connecting", NOTHING);
    this.#begin();
  }

  #wake(): void {
    if (!globalThis.document?.hidden) this.#source?.wake();
  }

  // What a callback of the page throws is shown, and stops nothing here.
  #call<A extends unknown[]>(callback: ((...values: A) => void) | null | undefined, ...values: A): void {
    try {
      callback?.(...values);
    } catch (error) {
      (globalThis.reportError ?? console.error)(error);
    }
  }
}

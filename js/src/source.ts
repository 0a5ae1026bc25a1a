// Where the events of a page come from: a stream of its own, or one for all tabs of a browser that
// are the same user. One of these leads, the others follow.
//
//   joining ──told all it missed──▶ following ──the leader is gone──▶ leading
//      ▲  └──not let in──▶ apart       │                  apart: has a stream of its own, as does
//      └──────missed something─────────┘                  who cannot share or does not want to
//
// The one that holds the lock NAME leads: it has the stream and says on the channel what comes,
// numbered.  Who joins first has the server add its topics to the leader's stream, with its own
// credentials: the server does that only for the same user.  Then it reads on its own stream what
// it missed, up to now, and goes on with what the channel has brought meanwhile.  What it has
// already had it knows by its id.
//
// Each tab holds a lock whose name ends with its topics, so that who leads asks the browser for
// all topics, and a tab that crashed is not among them.  A leader that is gone has let go of its
// lock; one that does not answer is robbed of it by a tab that is looked at.
import { Connection, NOTHING, parsed, retained, type Detail, type State, type Wiring } from "./connection.js";
import type { Wire } from "./parser.js";
import { matches, withQuery, withTopics } from "./topics.js";

// What the leader says of itself: in which term, how many events it has told in it, from which id
// its term began, and how its stream is.
interface Here {
  readonly kind: "here";
  readonly term: string;
  readonly count: number;
  readonly from: string;
  readonly state: State;
  readonly detail: Detail;
  readonly client: string;
  readonly identity: string;
  readonly topics: readonly string[];      // that its stream was opened for
  readonly named: readonly string[];       // that any tab has asked for
}
interface Named { readonly kind: "named"; readonly named: readonly string[] }
interface Told { readonly kind: "told"; readonly term: string; readonly count: number; readonly wire: Wire }
type Said = Here | Told | Named | { readonly kind: "ask" };

const ASK = 1_000;                         // ms between questions to a leader that says nothing
const UNANSWERED = 3;                      // questions after which it is robbed
const TOO_LONG = 10_000;                   // ms for joining; then one stream more is better
const KNOWN = 5_000;                       // events that are known again
const LEFT_OUT = ["topics", "last_event_id"];  // of the query; each tab has its own
const ALL = "*";

/** How to ask. */
export type Base = Pick<Wiring, "target" | "credentials" | "heartbeat" | "renew">;

/** Who hears what comes. */
export interface Sink {
  state(state: State, detail: Detail): void;
  event(wire: Wire): void;
}

export class Source {
  #name: string;                           // of the group; empty without one
  #base: Base;
  #sink: Sink;
  #topics: ReadonlySet<string>;
  #cursor: string;
  #role: "joining" | "following" | "leading" | "apart" = "joining";
  #channel: BroadcastChannel | null = null;
  #own: Connection | null = null;          // of who leads, catches up, or is apart
  #here: Here | null = null;               // what the leader said last
  #refused = "";                           // the client that this tab was not let in to
  #term = "";
  #count = 0;
  #from = "";
  #identity = "";
  #client = "";                            // of the stream that this tab hears
  #state: State = "connecting";            // of the own stream
  #detail: Detail = NOTHING;
  #asked: readonly string[] = [];          // the topics that the own stream was opened for
  #named = new Set<string>();              // the topics that any tab has asked for
  #known = new Set<string>();
  #waiting: Told[] | null = null;          // what the channel brings while this tab catches up; null: it has a hole
  #entering = false;
  #unanswered = 0;
  #heard = Date.now();
  #ticker: ReturnType<typeof setInterval> | undefined;
  #closed = new AbortController();
  #candidate = new AbortController();
  #resign: () => void = () => undefined;
  #leave: () => void = () => undefined;    // lets go of the lock that names this tab's topics
  #start = "";                             // where this tab's own stream began, when it was apart
  #held = "";                              // the name of that lock
  #ended: () => void = () => undefined;    // ends the catching up

  constructor(name: string, base: Base, topics: ReadonlySet<string>, lastEventId: string, sink: Sink) {
    [this.#name, this.#base, this.#topics, this.#cursor, this.#sink] = [name, base, topics, lastEventId, sink];
    if (lastEventId) this.#know(lastEventId);
    if (!name) {
      this.#refused = ALL;
      this.#apart();
      return;
    }
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }: MessageEvent<Said>) => this.#hear(data);
    this.#ticker = setInterval(() => this.#tick(), ASK);
    this.#stand({ ifAvailable: true });
  }

  get lastEventId(): string { return this.#cursor; }

  /** Ends it; nothing comes after. */
  close(): void {
    this.#closed.abort();
    this.#candidate.abort();
    clearInterval(this.#ticker);
    this.#own?.close();
    this.#ended();
    this.#channel?.close();
    this.#resign();
    this.#leave();
  }

  wake(): void {
    this.#own?.wake();
    if (this.#role === "following" || this.#role === "joining") this.#say({ kind: "ask" });
  }

  /** How many tabs hear the same stream. */
  async tabs(): Promise<number> {
    return this.#held ? (await this.#members()).length : 1;
  }

  /** The page's topics are others now; resolves once the server knows. */
  async change(topics: ReadonlySet<string>): Promise<void> {
    const before = this.#topics;
    this.#topics = topics;
    if (this.#role === "following" || this.#role === "joining") return this.#rejoin();
    const isApart = this.#role === "apart";
    if (!isApart) await this.#hold();      // what nobody wants any more goes with the next heartbeat
    this.#ask(topics);
    if (!this.#client) return;
    const add = [...topics].filter((topic) => !before.has(topic));
    const remove = isApart ? [...before].filter((topic) => !topics.has(topic)) : [];
    if (await this.#change({ add, remove }) !== 200) this.#own?.restart();
    else this.#asked = [...this.#asked, ...add];
  }

  // -- locks ------------------------------------------------------------------

  // Asks for the lead: if nobody has it, from who does not answer, or else when the leader is gone.
  #stand(how?: { ifAvailable?: true; steal?: true }): void {
    if (this.#closed.signal.aborted) return;
    this.#candidate.abort();
    const { signal } = this.#candidate = new AbortController();
    let led: Lock | null = null;
    const lead = (lock: Lock | null): Promise<void> | undefined => {
      led = lock;
      if (lock) return this.#lead();
      this.#stand();
      this.#say({ kind: "ask" });
      return undefined;
    };
    navigator.locks.request(this.#name, how ?? { signal }, lead).catch(() => { if (led) this.#robbed(); });
  }

  // Holds a lock that says this tab's topics; the one before it is let go.
  async #hold(): Promise<void> {
    const before = this.#leave;
    const name = `${this.#name} ${JSON.stringify([...this.#topics])}`;
    if (name === this.#held) return;
    this.#held = name;
    return new Promise((held) => {
      const until = new Promise<void>((leave) => { this.#leave = leave; });
      void navigator.locks.request(name, { mode: "shared" }, () => {
        before();
        held();
        return until;
      });
    });
  }

  async #members(): Promise<string[][]> {
    const { held = [] } = await navigator.locks.query();
    const start = `${this.#name} `;
    return held.filter(({ name }) => name?.startsWith(start)).map(({ name }) => JSON.parse(name?.slice(start.length) ?? "[]") as string[]);
  }

  async #all(): Promise<Set<string>> {
    return new Set([...this.#topics, ...(await this.#members()).flat()]);
  }

  // -- leading ----------------------------------------------------------------

  // Resolves when this tab leads no longer.
  #lead(): Promise<void> {
    if (this.#closed.signal.aborted) return Promise.resolve();
    this.#role = "leading";
    this.#ended();
    this.#shut();
    [this.#term, this.#count, this.#from, this.#waiting] = [`${Math.random()}`, 0, this.#cursor, null];
    this.#client = "";
    return new Promise((resign) => {
      this.#resign = resign;
      this.#own = this.#open(async () => {
        await this.#hold();
        const all = await this.#all();
        this.#asked = [...all];
        this.#learn(all);
        return withTopics(this.#base.target.url, all);
      }, () => undefined);
    });
  }

  // The lock was taken from this tab: it was too slow to answer.
  #robbed(): void {
    if (this.#closed.signal.aborted) return;
    this.#resign();
    this.#shut();
    [this.#role, this.#here] = ["joining", null];
    this.#stand();
    this.#say({ kind: "ask" });
  }

  // The server refuses what other tabs had been granted: each is told so by itself.
  #desert(): void {
    [this.#role, this.#refused] = ["joining", ALL];
    this.#candidate.abort();
    this.#resign();
    this.#apart();
  }

  #tell(wire: Wire): void {
    if (wire.event === "welcome") this.#announce();
    if (!retained(wire.id)) this.#say({ kind: "told", term: this.#term, count: ++this.#count, wire });
    if (wire.event === "heartbeat") void this.#prune();
  }

  #announce(): void {
    this.#say({
      kind: "here", term: this.#term, count: this.#count, from: this.#from, state: this.#state, detail: this.#detail,
      client: this.#client, identity: this.#identity, topics: this.#asked, named: [...this.#named],
    });
  }

  // Has the server forget the topics of tabs that are gone, while nobody joins.
  async #prune(): Promise<void> {
    await this.#alone(async () => {
      const all = await this.#all();
      const remove = [...this.#named].filter((topic) => !all.has(topic));
      if (this.#role !== "leading" || !remove.length) return;
      if (await this.#change({ remove }) === 200) [this.#asked, this.#named] = [[...all], all];
    });
  }

  // -- joining and following --------------------------------------------------

  #hear(said: Said): void {
    const isLeading = this.#role === "leading";
    if (said.kind === "named") this.#learn(said.named);
    else if (said.kind === "ask") {
      if (!isLeading) return;
      this.#own?.nudge();
      this.#announce();
    } else if (!isLeading) {               // else it is of a term before this one
      [this.#heard, this.#unanswered] = [Date.now(), 0];
      if (said.kind === "told") this.#hearTold(said);
      else this.#hearHere(said);
    }
  }

  #hearTold(said: Told): void {
    const isNext = said.term === this.#term && said.count === this.#count + 1;
    if (isNext) this.#count += 1;
    if (this.#role === "following") {
      if (isNext) this.#pass(said.wire);
      else void this.#rejoin();
    } else if (!isNext) {
      this.#waiting = null;
    } else {
      this.#waiting?.push(said);
    }
  }

  #hearHere(here: Here): void {
    this.#here = here;
    this.#learn(here.named);
    if (this.#role !== "following") {
      if (here.term !== this.#term || here.client !== this.#client) this.#waiting = null;
      if (!here.client && !this.#own) this.#sink.state(here.state === "waiting" ? "waiting" : "connecting", here.detail);
      void this.#enter();
      return;
    }
    // Another leader that began where this tab has been says next what this tab needs next.
    if (here.term !== this.#term && here.count === 0 && this.#known.has(here.from)) [this.#term, this.#count] = [here.term, 0];
    const isOther = here.client !== "" && here.client !== this.#client;
    const isSame = !isOther || (here.identity === this.#identity && this.#isIn(here.topics));
    if (here.term !== this.#term || here.count !== this.#count || !isSame) {
      void this.#rejoin();
      return;
    }
    if (here.client) this.#client = here.client;
    if (here.state !== "closed") this.#sink.state(here.state, here.detail);
  }

  // Says that a topic of these is asked for by a tab, and is not one that the server gives to all.
  #ask(topics: Iterable<string>): void {
    this.#learn(topics);
    this.#say({ kind: "named", named: [...topics] });
  }

  #learn(topics: Iterable<string>): void {
    for (const topic of topics) this.#named.add(topic);
  }

  #isIn(topics: readonly string[]): boolean {
    return [...this.#topics].every((topic) => topics.includes(topic));
  }

  #rejoin(): Promise<void> {
    if (this.#role === "following") this.#role = "joining";
    this.#waiting = null;
    this.#say({ kind: "ask" });
    return this.#enter();
  }

  // One tab after the other: each needs a connection for a moment, and there are six.
  async #enter(): Promise<void> {
    if (this.#entering || !this.#isOpen(this.#here)) return;
    this.#entering = true;
    const timer = setTimeout(() => this.#apart(), TOO_LONG);
    await this.#alone(() => this.#join());
    clearTimeout(timer);
    this.#entering = false;
  }

  #isOpen(here: Here | null): here is Here {
    return here !== null && here.client !== "" && here.client !== this.#refused && this.#refused !== ALL;
  }

  async #join(): Promise<void> {
    while (this.#role === "joining" || this.#role === "apart") {
      const [here, topics] = [this.#here, this.#topics];
      if (!this.#isOpen(here)) return;
      this.#ask(topics);
      [this.#term, this.#count, this.#client, this.#identity, this.#waiting] = [here.term, here.count, here.client, here.identity, []];
      const status = await this.#change({ add: [...topics] });
      if (this.#here?.client !== here.client) continue;
      if (status !== 200) {
        this.#refused = here.client;       // another user, or topics that it may not have
        this.#apart();
        return;
      }
      await this.#hold();
      await this.#catchUp();
      if (this.#waiting && topics === this.#topics) this.#follow(this.#waiting);
    }
  }

  // Reads on an own stream what there was before the leader's had this tab's topics. Who has no
  // past reads only the retained messages there: the channel has all that is newer, in order.
  async #catchUp(): Promise<void> {
    if (this.#closed.signal.aborted || this.#role === "leading") return;
    this.#shut();
    return new Promise((ended) => {
      this.#ended = ended;
      this.#own = this.#open(() => withTopics(this.#base.target.url, this.#topics), ended, !this.#cursor);
    });
  }

  #follow(missed: readonly Told[]): void {
    if (this.#role === "leading" || this.#closed.signal.aborted) return;
    this.#shut();
    this.#role = "following";
    for (const { wire } of missed) this.#pass(wire);
    this.#sink.state("open", NOTHING);
  }

  #shut(): void {
    this.#own?.close();
    this.#own = null;
  }

  // Goes on with a stream of its own.
  #apart(): void {
    if (this.#role !== "joining") return;
    this.#role = "apart";
    this.#shut();
    this.#leave();                         // its topics are no business of the leader's
    this.#held = "";
    this.#own = this.#open(() => withTopics(this.#base.target.url, this.#topics), () => undefined);
  }

  // A tab that is looked at asks; hidden ones have slow timers, and no hurry.
  #tick(): void {
    if (this.#role === "leading" || globalThis.document?.hidden || Date.now() - this.#heard < ASK) return;
    if (this.#unanswered++ < UNANSWERED) this.#say({ kind: "ask" });
    else {
      this.#unanswered = 0;
      this.#stand({ steal: true });
    }
  }

  // -- what comes -------------------------------------------------------------

  #open(url: () => string | Promise<string>, onLive: () => void, isFresh = false): Connection {
    return new Connection({
      ...this.#base,
      lastEventId: this.#cursor,
      url,
      onState: (state, detail) => this.#become(state, detail),
      onEvent: (wire) => {
        const role = this.#role;
        if (wire.event === "welcome" && role !== "joining") {
          const said = Object(parsed(wire.data)) as { client_id?: string; identity?: string };
          if (role === "apart") this.#start = wire.id;
          [this.#client, this.#identity] = [said.client_id ?? "", said.identity ?? ""];
        }
        if (isFresh && !isOurs(wire) && !retained(wire.id)) return;
        if (role === "leading") this.#tell(wire);
        this.#take(wire);
      },
      onLive,
    });
  }

  #become(state: State, detail: Detail): void {
    [this.#state, this.#detail] = [state, detail];
    const role = this.#role;
    if (role !== "joining" && state !== "open") this.#client = "";
    if (role === "leading" && state !== "open") {
      this.#announce();
      const others = this.#asked.some((topic) => !this.#topics.has(topic));
      if (state === "closed" && others) return this.#desert();
    }
    this.#sink.state(state, detail);
  }

  #take(wire: Wire): void {
    this.#cursor = wire.id;
    this.#know(wire.id);
    this.#know(key(wire));
    if (this.#isMine(wire)) this.#sink.event(wire);
  }

  // What comes by the channel may have come before, or be the last that was before this tab's own stream.
  #pass(wire: Wire): void {
    if (wire.id && !isOurs(wire) && (wire.id === this.#start || this.#known.has(key(wire)))) return;
    this.#take(wire);
  }

  // A topic that no tab has named is one that the server gives to all.
  #isMine({ topics }: Wire): boolean {
    const has = (names: Iterable<string>): boolean => [...names].some((name) => topics.some((topic) => matches(name, topic)));
    return !topics.length || has(this.#topics) || !has(this.#named);
  }

  #know(id: string): void {
    this.#known.add(id);
    if (this.#known.size > KNOWN) for (const first of this.#known) { this.#known.delete(first); break; }
  }

  // Changes the topics of the live stream; returns the status of the answer, 0 if there was none.
  async #change(topics: { add?: readonly string[]; remove?: readonly string[] }): Promise<number> {
    const { target, credentials } = this.#base;
    const url = withQuery(target.url, (params) => LEFT_OUT.forEach((name) => params.delete(name)));
    try {
      const { status } = await fetch(url.replace(/[^/?]*(?=\?|$)/, "subscriptions"), {
        method: "POST",
        headers: { ...target.headers, "Content-Type": "application/json" },
        credentials,
        body: JSON.stringify({ client_id: this.#client, ...topics }),
      });
      return status;
    } catch {
      return 0;
    }
  }

  async #alone(act: () => Promise<void>): Promise<void> {
    await navigator.locks.request(`${this.#name}+`, { signal: this.#closed.signal }, act).catch(() => undefined);
  }

  #say(said: Said): void {
    if (!this.#closed.signal.aborted) this.#channel?.postMessage(said);
  }
}

const isOurs = ({ event }: Wire): boolean => /^(welcome|heartbeat|reset|dropped|revoked|error|close)$/.test(event);
const key = ({ id, event, topics }: Wire): string => [id, event, ...topics].join("\n");

/** The name of the group of tabs that may share: the same address, headers and wish. */
export async function groupOf(target: { url: string; headers: Record<string, string> }, credentials: string, wish: string): Promise<string> {
  const url = new URL(target.url, globalThis.document?.baseURI ?? globalThis.location.href);
  for (const name of [...LEFT_OUT, "ticket"]) url.searchParams.delete(name);
  const text = JSON.stringify([url.href, Object.entries(target.headers).sort(), credentials, wish]);
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return `sse_broker 1 ${[...new Uint8Array(digest).subarray(0, 12)].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

// Bytes in any chunks to events, by the HTML standard, 9.2.6.

/** One event as it was on the wire, with the topics that it was sent to. */
export interface Wire {
  readonly event: string;
  readonly data: string;
  readonly id: string;
  readonly topics: readonly string[];
}

/** One per connection; lastEventId is that of the last complete event, and begins as the one before had it. */
export class Parser {
  lastEventId: string;
  retry: number | null = null;             // ms, once it was said
  live = false;                            // the broker said that all that was missed has been told
  #decoder = new TextDecoder();            // drops one leading BOM, as the standard wants
  #afterCR = false;
  #pieces: string[] = [];                  // of the unfinished line
  #data: string[] = [];
  #topics: string[] = [];
  #event = "";
  #id: string;

  constructor(lastEventId = "") {
    this.lastEventId = this.#id = lastEventId;
  }

  /** Returns the events that these bytes complete. */
  feed(bytes: Uint8Array): Wire[] {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (!text) return [];
    if (this.#afterCR && text.startsWith("\n")) text = text.slice(1);  // of a CRLF cut in two
    this.#afterCR = text.endsWith("\r");
    const lines = text.split(/\r\n|\r|\n/);
    const rest = lines.pop();
    if (lines.length) {
      lines[0] = this.#pieces.join("") + (lines[0] ?? "");
      this.#pieces = [];
    }
    if (rest) this.#pieces.push(rest);
    return lines.map((line) => this.#line(line)).filter((wire) => wire !== null);
  }

  #line(line: string): Wire | null {
    if (!line) return this.#dispatch();
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value.startsWith(" ")) value = value.slice(1);
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#event = value;
    else if (name === "topic") this.#topics.push(value);  // the broker's; others pass it over
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    else if (name === "retry" && /^[0-9]+$/.test(value)) this.retry = Number(value);
    else if (line === ": live") this.live = true;
    return null;
  }

  #dispatch(): Wire | null {
    this.lastEventId = this.#id;
    const [event, data, topics] = [this.#event || "message", this.#data, this.#topics];
    [this.#event, this.#data, this.#topics] = ["", [], []];
    return data.length ? { event, data: data.join("\n"), id: this.#id, topics } : null;
  }
}

// sse_broker in the browser: keeps a page connected to its stream.
//
//   import { connect } from "sse-broker";        // or the script that the server has: SSEBroker.connect
//
//   const stream = connect("/sse/stream", { topics: ["news"], onReset: () => location.reload() });
//   stream.on("paid", (event) => show(event.data));
//
// A native EventSource gives up for good at the first answer that is not 200, cannot see what
// the answer was, and takes one of six connections in each tab. This reads with fetch() instead,
// and tabs of the same user share one stream where the browser can.
import { Stream, type Events, type Options } from "./stream.js";

export { Parser, type Wire } from "./parser.js";
export { Stream } from "./stream.js";
export type { DataOf, Events, Handler, LibraryEvents, Options, StreamEvent } from "./stream.js";
export type { Detail, Renew, Renewed, State } from "./connection.js";

// While client.js runs the browser says which script it is; a module looks for the one of sse_script().
const { document } = globalThis as { document?: Document };
const current = document?.currentScript as HTMLScriptElement | null | undefined;
const own = current && /\/client\.js([?#]|$)/.test(current.src) ? current : null;

/** Opens a stream: at `url`, or where the page's script says, or at /sse/stream. Returns at once. */
export function connect<E extends Events = Events>(url?: string | URL | null, options?: Options): Stream<E>;
export function connect<E extends Events = Events>(options?: Options): Stream<E>;
export function connect<E extends Events = Events>(first?: string | URL | Options | null, second?: Options): Stream<E> {
  const isURL = typeof first === "string" || first instanceof URL;
  const options = second ?? (isURL ? {} : first) ?? {};
  if (isURL) return new Stream<E>(String(first), options);
  const script = own ?? document?.querySelector<HTMLScriptElement>("script[data-sse-stream]");
  const { sseStream, lastEventId } = script?.dataset ?? {};
  const url = sseStream ?? script?.src.replace(/[^/]*$/, "stream") ?? "/sse/stream";
  return new Stream<E>(url, lastEventId === undefined ? options : { lastEventId, ...options });
}

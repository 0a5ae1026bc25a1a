// What the types promise to a page; tsc says if they do not.
import { connect, type StreamEvent } from "../src/index.js";

interface Order { id: number; total: string }
interface Mine { paid: Order; note: string }

const stream = connect<Mine>("/sse/stream", { topics: ["orders:*"], share: "ada", onState: (state, { reason }) => [state, reason] });
const off: () => void = stream.on("paid", ({ data }) => data.id.toFixed());
stream.on("reset", ({ data }) => data.reason.trim(), { topic: "orders:**" });
stream.on("other", (event: StreamEvent) => event.topics.join());
// @ts-expect-error: an order has no such field
stream.on("paid", ({ data }) => data.price);
// @ts-expect-error: there is no such option
connect("/sse/stream", { onReest: () => undefined });
connect({ signal: new AbortController().signal, renew: async () => Promise.resolve("/sse/stream?ticket=1") });
void stream.subscribe("orders:7").then(off);
void stream.opened.then(() => stream.tabs());

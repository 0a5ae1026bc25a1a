// What a page without modules has: SSEBroker.
import { Parser, connect } from "./index.js";

(globalThis as { SSEBroker?: unknown }).SSEBroker = { connect, Parser };

// A stream as a hook: opened with the component, closed with it.
import { useEffect, useRef, useState } from "react";
import { connect } from "sse-broker";

// handlers: {event: (data) => ...}; the newest ones are called. Returns the state of the stream.
export function useStream(url, topics, handlers) {
  const [state, setState] = useState("connecting");
  const newest = useRef(handlers);
  useEffect(() => { newest.current = handlers; });
  const key = topics.join(",");
  useEffect(() => {
    const stream = connect(url, { topics: key.split(",").filter(Boolean), onState: setState });
    stream.on("*", (event) => newest.current[event.type]?.(event.data, event));
    return () => stream.close();
  }, [url, key]);
  return state;
}

import { useState } from "react";
import { createRoot } from "react-dom/client";
import { useStream } from "./useStream.js";

function News() {
  const [news, setNews] = useState([]);
  const state = useStream("/sse/stream?user_id=1", ["news"], {
    n: (data) => setNews((before) => [data, ...before].slice(0, 20)),
  });
  return <main><p role="status">{state}</p><ul>{news.map((one) => <li key={one}>{one}</li>)}</ul></main>;
}

createRoot(document.getElementById("root")).render(<News />);

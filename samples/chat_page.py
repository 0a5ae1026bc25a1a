"""The pages of the chat: a question, and an answer that is rendered and then streamed."""

from __future__ import annotations

HEAD = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Chat</title>
<style>
:root { color-scheme: light dark; font: 1.05rem/1.6 system-ui, sans-serif; }
body { max-width: 42rem; margin: 2rem auto; padding: 0 1rem; }
form { display: flex; gap: .5rem; } input { flex: 1; font: inherit; padding: .4rem .6rem; }
button { font: inherit; padding: .4rem .9rem; } #text { white-space: pre-wrap; }
#text[aria-busy=true]::after { content: "▍"; }
</style>"""

ASK = f"""{HEAD}<main><h1>Ask something</h1>
<form method="post"><input name="question" aria-label="Question" maxlength="500" required
  value="What becomes of an answer when I close the page?"><button>Ask</button></form></main>"""

CHAT = (
    HEAD
    + """{{ sse_script(last_event_id=moment) }}
<main><h1>{{ question }}</h1>
<p id="text" role="log" aria-busy="{{ 'true' if status == 'writing' else 'false' }}">{{ text }}</p>
<p><span id="status" role="status">{{ status }}</span>
{% if status == "writing" %}<button id="cancel">Stop</button>{% endif %}
<a href="/chats">Ask something else</a></p></main>
<script>
const show = document.getElementById("text"), end = document.getElementById("status");
const url = "{{ request.path }}";
let timer;
// Nothing for a while: the writer may be gone with its process. Who asks has the answer written on.
function wait() {
  clearTimeout(timer);
  timer = setTimeout(read, 4000);
}
async function read() {
  const found = await fetch(`${url}.json`).then((answer) => answer.json()).catch(() => null);
  if (found) show.textContent = found.text;
  if (found && found.status !== "writing") finish(found.status); else wait();
}
function finish(status) {
  clearTimeout(timer);
  end.textContent = status;
  show.setAttribute("aria-busy", "false");
  document.getElementById("cancel")?.remove();
  stream.close();
}
const stream = SSEBroker.connect("/sse/stream?user_id=1", {
  topics: ["chat:{{ id }}"], lastEventId: "{{ moment }}", onReset: read,
});
stream.on("text", ({ data: { at, text } }) => {  // a piece that comes again changes nothing
  if (at > show.textContent.length) read();
  else show.textContent = show.textContent.slice(0, at) + text;
  wait();
});
stream.on("end", ({ data }) => finish(data.status));
const stop = document.getElementById("cancel");
if (stop) stop.onclick = () => fetch(`${url}/cancel`, { method: "POST" });
if ("{{ status }}" === "writing") wait(); else finish("{{ status }}");
</script>"""
)

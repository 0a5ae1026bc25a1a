// Two people side by side, and a server that can be stopped: what is sent meanwhile arrives.
"use strict";

const MARK = "while the server was away";
const [story, stop] = ["story", "stop"].map((id) => document.getElementById(id));
const pages = [...document.querySelectorAll("iframe")];
const pause = (seconds) => new Promise((wake) => setTimeout(wake, seconds * 1000));

const arrived = () => pages.map(({ contentDocument: page }) =>
  [...page.querySelectorAll("#inbox li")].filter((note) => note.textContent.includes(MARK)).length);

async function tell() {
  const before = arrived();
  stop.disabled = true;
  const answer = await fetch("/demo/stop", { method: "POST" }).catch(() => null);
  if (!answer?.ok) {
    story.textContent = answer?.status === 409 ? "Start the demo with make run: this server cannot stop itself." : "The server cannot be reached.";
    stop.disabled = false;
    return;
  }
  story.textContent = "The server is gone. Another process goes on sending: three messages to each of the two.";
  const expected = (await answer.json()).messages;
  for (let left = 60; left; left--) {
    await pause(0.5);
    if (arrived().every((count, index) => count - before[index] === expected)) break;
  }
  const counts = arrived().map((count, index) => count - before[index]);
  story.textContent = counts.every((count) => count === expected)
    ? `The server is back, and all ${expected} messages that were sent without it are in both inboxes, once and in order.`
    : `The server is back; ${counts.join(" and ")} of ${expected} messages have arrived so far.`;
  stop.disabled = false;
}

stop.onclick = tell;

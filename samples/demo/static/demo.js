// The demo page: one stream (client.js of the library), six panels.  Text goes in by textContent only.
"use strict";

const $ = (id) => document.getElementById(id);
const LIBRARY = ["welcome", "heartbeat", "reset", "dropped", "error", "close"];
const TOPICS = "metrics:host,logs:app,approval:process:*";
const KEEP = 200;  // lines of each list
const CHARTS = [  // field of a sample, label, the least its axis reaches to
  ["cpu", "server CPU, % of a core", 10],
  ["load", "load of the machine", 1],
  ["streams", "open streams", 4],
  ["events", "events sent per second by a worker", 10],
];

let users = [];
let me = null;          // one of users
let stream = null;
let count = 0;
let sampled = 0;        // when the last sample came
const samples = [];
const unread = new Set();

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const clock = () => new Date().toLocaleTimeString("en-GB");

async function post(url, body) {
  try {
    const answer = await fetch(url, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    if (!answer.ok) show("refused", (await answer.json().catch(() => ({}))).error || answer.statusText);
  } catch {
    show("refused", "the server cannot be reached; nothing was sent");
  }
}

async function get(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(answer.statusText);
  return answer.json();
}

// -- the stream ---------------------------------------------------------------

function state(name, detail = "") {
  if ($("state").dataset.state !== name) {
    $("state").dataset.state = name;
    $("state").querySelector("b").textContent = name;
  }
  $("detail").textContent = $("detail").title = detail;
}

function connect() {
  const query = new URLSearchParams({ user_id: me.id, topics: TOPICS });
  stream?.close();
  stream = SSEBroker.connect(`/sse/stream?${query}`, {
    onEvent: take,
    onReset: recover,
    onState(name, { reason }) {
      const after = stream.lastEventId && `after ${stream.lastEventId}`;
      if (name === "open") tell();
      else if (name === "closed") state("closed", reason);
      else state(after ? "reconnecting" : "connecting", reason || after);
    },
  });
  state("connecting");
}

// How many tabs of this person share the stream.
async function tell() {
  const tabs = await stream.tabs();
  if (stream.state === "open") state("live", tabs > 1 ? `${tabs} tabs, one stream` : "one tab, one stream");
}

function take({ type, data, text, lastEventId }) {
  show(type, text, lastEventId);
  if (type === "welcome") {
    post("/dashboard", {});  // a new server has nobody measuring yet
    sampled = Date.now();
  } else {
    panels[type]?.(data);
  }
}

// The stream says that it cannot prove continuity; the database knows what came in between.
async function recover() {
  for (const row of $("tasks").querySelectorAll("[data-running]")) {
    row.querySelector("small").textContent = "lost";
  }
  const missed = await load(true);
  if (missed === null) return;
  $("notice").hidden = false;
  $("notice").firstChild.textContent = "The stream could not go on where it was (event: reset). "
    + `Read again from the database: ${missed} new or changed.`;
}

function show(name, data, id = "") {
  const log = $("events");
  const library = LIBRARY.includes(name) ? "library " : "";
  log.prepend(make("li", { class: `${library}${name.replace(/\W/g, "-")} new` },
    make("time", {}, clock()), make("b", {}, name), make("i", {}, id), make("span", {}, data)));
  while (log.children.length > KEEP) log.lastChild.remove();
  $("count").textContent = ++count;
}

// -- the panels ---------------------------------------------------------------

const panels = {
  notification(note) { showNote(note, true); },
  "approval:status_changed"(task) { showApproval(task, true); },
  progress({ task, percent }) {
    let row = $(`task-${task}`);
    if (!row) {
      row = make("li", { id: `task-${task}` }, make("span", {}, task),
        make("progress", { max: 100, value: 0, "aria-label": `task ${task}` }), make("small"));
      $("tasks").prepend(row);
    }
    row.toggleAttribute("data-running", percent < 100);
    row.querySelector("progress").value = percent;
    row.querySelector("small").textContent = percent < 100 ? `${percent} %` : "done";
  },
  announcement({ message }) {
    $("banner").hidden = false;
    $("banner").firstChild.textContent = message;
  },
  sample(sample) {
    sampled = Date.now();
    samples.push(sample);
    if (samples.length > 60) samples.shift();
    draw();
  },
  log({ level, logger, text }) {
    const list = $("logs");
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 30;
    list.append(make("li", { class: level }, make("time", {}, clock()), " ",
      make("b", {}, level.padEnd(7)), " ", make("i", {}, logger), ` ${text}`));
    while (list.children.length > KEEP) list.firstChild.remove();
    if (atEnd) list.scrollTop = list.scrollHeight;
  },
  // What a terminal sends with POST /api/test/send: shown with the other events, in no panel.
  message() {},
  test() {},
};

// Returns whether the note was not there before.
function showNote(note, fresh) {
  const { id = "", title = note } = Object(note);
  if (id && $(`note-${id}`)) return false;
  const row = make("li", { class: fresh ? "new unread" : "" },
    make("span", {}, typeof title === "string" ? title : JSON.stringify(title)),
    make("small", {}, id && `#${id}`));
  if (id) row.id = `note-${id}`;
  row.dataset.number = id;
  const older = [...$("inbox").children].find((other) => !(Number(other.dataset.number) > Number(id)));
  $("inbox").insertBefore(row, fresh ? $("inbox").firstChild : older ?? null);
  if (fresh) unread.add(row);
  badge();
  return true;
}

function badge() {
  $("unread").hidden = $("read").hidden = unread.size === 0;
  $("unread").textContent = unread.size;
}

function readAll() {
  for (const row of unread) row.classList.remove("unread");
  unread.clear();
  badge();
}

// Returns whether anything changed.  A decision stays: what was read before it may come after it.
function showApproval(task, fresh) {
  const old = $(`approval-${task.id}`);
  if (old && (old.dataset.status !== "pending" || task.status === "pending")) return false;
  const name = users.find((user) => user.id === task.approver_id)?.name || "somebody";
  const row = make("li", { id: `approval-${task.id}`, class: fresh ? "new" : "", "data-status": task.status },
    make("span", {}, task.title, make("small", {}, ` for ${name}`)));
  if (task.status === "pending" && task.approver_id === me.id) {
    for (const [label, status] of [["Approve", "approved"], ["Reject", "rejected"]]) {
      const button = make("button", { type: "button", class: status }, label);
      button.onclick = () => post(`/approvals/${task.id}`, { status });
      row.append(button);
    }
  }
  row.append(make("b", { class: `status ${task.status}` }, task.status));
  if (old) old.replaceWith(row); else $("approvals").prepend(row);
  return true;
}

function draw() {
  for (const [field, , least] of CHARTS) {
    const chart = $(`chart-${field}`);
    const values = samples.map((sample) => sample[field] ?? 0);
    const top = Math.max(least, ...values) * 1.15;
    const points = values.map((value, index) =>
      `${(600 - 600 * (values.length - 1 - index) / 59).toFixed(1)},${(99 - 98 * value / top).toFixed(1)}`);
    chart.querySelector("polyline").setAttribute("points", points.join(" "));
    const left = points[0].split(",")[0];
    chart.querySelector("polygon").setAttribute("points", `${left},100 ${points.join(" ")} 600,100`);
    chart.querySelector("b").textContent = values[values.length - 1];
  }
}

// Reads what the database has; returns how much of it the page did not show, null if it cannot.
async function load(fresh) {
  const user = me;
  try {
    const [notes, approvals] = await Promise.all([get(`/notifications/${user.id}`), get("/approvals")]);
    if (user !== me) return null;
    const changed = [...notes.reverse().map((note) => showNote(note, fresh)),
      ...approvals.reverse().map((task) => showApproval(task, fresh))];
    return changed.filter(Boolean).length;
  } catch {
    return null;  // the stream's own state says that the server is away
  }
}

// -- the page -----------------------------------------------------------------

async function become(user) {
  me = user;
  readAll();
  history.replaceState(null, "", `#${user.name}`);
  for (const id of ["inbox", "approvals", "tasks", "logs"]) $(id).replaceChildren();
  for (const id of ["banner", "notice"]) $(id).hidden = true;
  for (const button of $("users").children) {
    button.setAttribute("aria-pressed", button.dataset.id === user.id);
  }
  $("task").querySelector(".hint").textContent = `A background thread reports to ${user.name} alone.`;
  $("second").href = `/person#${users[(users.indexOf(user) + 1) % users.length].name}`;
  $("notify").elements.user_id.value = users[user === users[0] ? 1 : 0].id;
  document.title = `${user.name} · sse_broker demo`;
  connect();
  load(false);
}

function wire(form, url, extra = () => ({})) {
  $(form).addEventListener("submit", (event) => {
    event.preventDefault();
    post(url, { ...Object.fromEntries(new FormData(event.target)), ...extra() });
  });
}

function chart([field, label]) {
  const box = make("div", { class: `chart ${field === "events" ? "sent" : field}`, id: `chart-${field}` },
    make("p", {}, label, make("b", {}, "–")));
  const svg = (tag, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const picture = svg("svg", { viewBox: "0 0 600 100", preserveAspectRatio: "none", "aria-hidden": "true" });
  picture.append(svg("polygon", {}), svg("polyline", {}));
  box.append(picture);
  return box;
}

async function begin() {
  try {
    users = await get("/api/users");
  } catch {
    setTimeout(begin, 2000);
    return;
  }
  for (const user of users) {
    const button = make("button", { type: "button", "data-id": user.id }, user.name, make("small", {}, user.role));
    button.onclick = () => become(user);
    $("users").append(button);
  }
  for (const select of document.querySelectorAll("select[name$=_id]")) {
    for (const user of users) select.append(make("option", { value: user.id }, user.name));
    select.value = users[1].id;
  }
  $("charts").append(...CHARTS.map(chart));
  wire("notify", "/notifications");
  wire("ask", "/approvals");
  wire("task", "/tasks", () => ({ user_id: me.id }));
  wire("announce", "/announcements");
  wire("log", "/log");
  setInterval(() => { if (stream.state === "open") tell(); }, 2000);
  setInterval(() => {  // the worker that measured may be gone; another one will
    if ($("state").dataset.state === "live" && Date.now() - sampled > 4000) {
      sampled = Date.now();
      post("/dashboard", {});
    }
  }, 1000);
  $("read").onclick = readAll;
  $("quiet").onchange = (event) => $("events").classList.toggle("quiet", event.target.checked);
  $("clear").onclick = () => $("events").replaceChildren();
  for (const id of ["banner", "notice"]) {
    $(id).querySelector("button").onclick = () => { $(id).hidden = true; };
  }
  const named = () => users.find((user) => `#${user.name}` === location.hash);
  window.onhashchange = () => { if (named() && named() !== me) become(named()); };
  become(named() || users[0]);
}

document.body.classList.toggle("framed", window.parent !== window);
begin();

// The demo page: one EventSource, six panels.  Text goes in by textContent only.
"use strict";

const $ = (id) => document.getElementById(id);
const LIBRARY = ["welcome", "heartbeat", "reset", "dropped", "error", "close"];
const TOPICS = "metrics:host,logs:shop,approval:process:*";
const KEEP = 200;

let users = [], me = null, source = null, lastId = "", retryTimer = 0, wait = 0, unread = 0;
const samples = [];

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

async function post(url, body) {
  try {
    const answer = await fetch(url, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    if (!answer.ok) show("refused", (await answer.json().catch(() => ({}))).error || answer.statusText);
    return answer.ok;
  } catch {
    show("refused", "the server cannot be reached");
    return false;
  }
}

async function get(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(answer.statusText);
  return answer.json();
}

// -- the stream ---------------------------------------------------------------

function state(name, detail = "") {
  $("state").dataset.state = name;
  $("state").querySelector("b").textContent = name;
  $("detail").textContent = detail;
}

function connect() {
  clearTimeout(retryTimer);
  source?.close();
  state(lastId ? "reconnecting" : "connecting");
  const query = new URLSearchParams({ user_id: me.id, topics: TOPICS });
  if (lastId) query.set("last_event_id", lastId);
  const stream = source = new EventSource(`/sse/stream?${query}`);
  stream.onerror = () => {
    if (stream !== source) return;
    state("reconnecting", lastId ? `since ${lastId}` : "");
    // An EventSource that was refused (a proxy's 502, say) gives up for good: make a new one.
    if (stream.readyState === EventSource.CLOSED) {
      wait = Math.min(15000, (wait || 500) * 2);
      retryTimer = setTimeout(connect, wait * (0.5 + Math.random() / 2));
    }
  };
  for (const name of [...LIBRARY, ...Object.keys(panels)]) {
    stream.addEventListener(name, (event) => {
      if (stream === source && event.data !== undefined) take(name, event);
    });
  }
}

function take(name, event) {
  if (event.lastEventId) lastId = event.lastEventId;
  show(name, event.data);
  if (name === "welcome") {
    wait = 0;
    state("live", lastId);
    post("/dashboard", {});  // a new server has nobody measuring yet
  } else if (name === "reset") {
    load();  // what came in between is in the database
  } else if (name === "close" || name === "error") {
    state("reconnecting", event.data);
  } else {
    state("live", lastId);
    panels[name]?.(JSON.parse(event.data));
  }
}

function show(name, data) {
  const log = $("events");
  const kind = LIBRARY.includes(name) ? `library ${name}` : name.replace(/\W/g, "-");
  log.prepend(make("li", { class: `${kind} new` },
    make("time", {}, new Date().toLocaleTimeString()), make("b", {}, name), make("span", {}, data)));
  while (log.children.length > KEEP) log.lastChild.remove();
}

// -- the panels ---------------------------------------------------------------

const panels = {
  notification(note) {
    addNote(note, true);
    unread += 1;
    badge();
  },
  "approval:status_changed"(task) { showApproval(task); },
  progress({ task, percent }) {
    let row = $(`task-${task}`);
    if (!row) {
      row = make("li", { id: `task-${task}` }, make("span", {}, `task ${task}`),
        make("progress", { max: 100, value: 0, "aria-label": `task ${task}` }), make("small"));
      $("tasks").prepend(row);
    }
    row.querySelector("progress").value = percent;
    row.querySelector("small").textContent = percent < 100 ? `${percent} %` : "done";
  },
  announcement({ message }) {
    $("banner").hidden = false;
    $("banner").firstChild.textContent = message;
  },
  sample(sample) {
    samples.push(sample);
    if (samples.length > 60) samples.shift();
    draw();
  },
  log({ level, text }) {
    const list = $("logs");
    list.append(make("li", { class: level }, `${new Date().toLocaleTimeString()} ${level.padEnd(7)} ${text}`));
    while (list.children.length > KEEP) list.firstChild.remove();
    list.scrollTop = list.scrollHeight;
  },
};

function addNote(note, fresh) {
  if ($(`note-${note.id}`)) return;
  $("inbox").prepend(make("li", { id: `note-${note.id}`, class: fresh ? "new" : "" },
    make("span", {}, note.title), make("small", {}, note.id ? `#${note.id}` : "")));
}

function badge() {
  $("unread").hidden = unread === 0;
  $("unread").textContent = unread;
}

function showApproval(task) {
  const name = users.find((user) => user.id === task.approver)?.name || "somebody";
  const row = make("li", { id: `approval-${task.id}`, class: "new" },
    make("span", {}, task.title, make("small", {}, ` for ${name}`)),
    make("b", { class: task.status }, task.status));
  if (task.status === "pending" && task.approver === me.id) {
    for (const [label, status] of [["Approve", "approved"], ["Reject", "rejected"]]) {
      const button = make("button", { type: "button" }, label);
      button.onclick = () => post(`/approvals/${task.id}`, { status });
      row.append(button);
    }
  }
  const old = $(`approval-${task.id}`);
  if (old) old.replaceWith(row); else $("approvals").prepend(row);
}

function draw() {
  const lines = [["l1", "load", 4], ["l2", "cpu", 100], ["l3", "streams", 10]];
  for (const [style, field, least] of lines) {
    const top = Math.max(least, ...samples.map((sample) => sample[field]));
    const points = samples.map((sample, index) =>
      `${600 - 10 * (samples.length - 1 - index)},${132 - 124 * sample[field] / top}`);
    document.querySelector(`polyline.${style}`).setAttribute("points", points.join(" "));
  }
  const { load, cpu, streams } = samples[samples.length - 1];
  $("numbers").textContent = `load ${load}, CPU ${cpu} %, ${streams} open streams`;
}

async function load() {
  const user = me;
  try {
    const [notes, approvals] = await Promise.all([get(`/notifications/${me.id}`), get("/approvals")]);
    if (user !== me) return;
    // Events may have come while this was on its way: what is shown already is newer.
    notes.reverse().forEach((note) => addNote(note, false));
    for (const task of approvals) {
      if (task.status !== "pending" || !$(`approval-${task.id}`)) showApproval(task);
    }
  } catch {
    // The stream's own state says that the server is away; its return loads again.
  }
}

// -- the page -----------------------------------------------------------------

function become(user) {
  me = user;
  lastId = "";
  unread = 0;
  badge();
  location.hash = user.name;
  for (const id of ["inbox", "approvals", "tasks", "logs"]) $(id).replaceChildren();
  for (const button of $("users").children) button.setAttribute("aria-pressed", button.dataset.id === user.id);
  document.title = `${user.name} · sse_broker demo`;
  load();
  connect();
}

function wire(form, url, extra = () => ({})) {
  $(form).addEventListener("submit", (event) => {
    event.preventDefault();
    post(url, { ...Object.fromEntries(new FormData(event.target)), ...extra() });
  });
}

async function begin() {
  users = await get("/api/users");
  for (const user of users) {
    const button = make("button", { type: "button", "data-id": user.id }, user.name, make("small", {}, user.role));
    button.onclick = () => become(user);
    $("users").append(button);
  }
  for (const select of document.querySelectorAll("select[name$=_id]")) {
    for (const user of users) select.append(make("option", { value: user.id }, user.name));
  }
  $("ask").approver_id.value = users[1].id;
  wire("notify", "/notifications");
  wire("ask", "/approvals");
  wire("task", "/tasks", () => ({ user_id: me.id }));
  wire("announce", "/announcements");
  wire("log", "/log");
  $("inbox").onclick = () => { unread = 0; badge(); };
  $("banner").querySelector("button").onclick = () => { $("banner").hidden = true; };
  $("clear").onclick = () => $("events").replaceChildren();
  become(users.find((user) => `#${user.name}` === location.hash) || users[0]);
}

begin();

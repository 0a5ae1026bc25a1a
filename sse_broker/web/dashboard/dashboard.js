// The operators' page.  Everything that comes from the server is written as text, never as markup.
"use strict";

const MOST = 120; // points of a chart: four minutes
const LEAST = 15;
const $ = (id) => document.getElementById(id);
const base = "dashboard/";
const history = { connections: [], deliveries: [], latency: [] };
let before = null;

function make(tag, text, className) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = String(text);
  if (className) node.className = className;
  return node;
}

const whole = new Intl.NumberFormat("en");
const number = (value) => (value >= 100 || Number.isInteger(value) ? whole.format(Math.round(value)) : value.toFixed(1));
function bytes(value) {
  if (!value) return "–";
  const units = ["B", "kB", "MB", "GB"];
  let at = 0;
  while (value >= 1000 && at < units.length - 1) { value /= 1000; at += 1; }
  return `${value.toFixed(value < 10 && at ? 1 : 0)} ${units[at]}`;
}

function draw(name, value, unit) {
  const points = history[name];
  points.push(value);
  if (points.length > MOST) points.shift();
  const top = Math.max(1, ...points) * 1.1;
  const wide = Math.max(LEAST, points.length);
  const place = (v, i) => `${((i + wide - points.length) * 300 / (wide - 1)).toFixed(1)},${(100 - v * 100 / top).toFixed(1)}`;
  const line = points.map(place).join(" L");
  const first = (wide - points.length) * 300 / (wide - 1);
  const svg = $(name);
  svg.replaceChildren();
  for (const [className, d] of [["area", `M${first.toFixed(1)},100 L${line} L300,100 Z`], ["line", `M${line}`]]) {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("class", className);
    path.setAttribute("d", d);
    svg.append(path);
  }
  svg.setAttribute("aria-label", `${name} lately: now ${number(value)}${unit}, at most ${number(Math.max(...points))}${unit}`);
  $(`${name}-axis`).replaceChildren(make("span", `${wide * 2} s ago`), make("span", `at most ${number(Math.max(...points))}${unit}`), make("span", "now"));
}

function cards(list) {
  $("cards").replaceChildren(...list.map(([name, value, more]) => {
    const card = make("li");
    card.append(make("span", name), make("strong", value));
    if (more) card.append(make("small", ` ${more}`));
    return card;
  }));
}

function bars(id, rows, none) {
  const most = Math.max(1, ...rows.map((row) => row[1]));
  if (!rows.length) { $(id).replaceChildren(make("p", none, "dim")); return; }
  const table = make("table");
  const body = make("tbody");
  for (const [name, value] of rows) {
    const row = make("tr");
    const head = make("th", name);
    head.scope = "row";
    head.className = "id";
    head.title = name;
    const cell = make("td", undefined, "rest");
    const bar = make("span", undefined, "bar");
    bar.style.width = `${Math.max(2, value * 100 / most)}%`;
    cell.append(bar);
    row.append(head, make("td", number(value), "number"), cell);
    body.append(row);
  }
  table.append(body);
  $(id).replaceChildren(table);
}

function percentile(bounds, buckets, share) {
  const total = buckets.reduce((sum, one) => sum + one, 0);
  let seen = 0;
  for (let at = 0; at < buckets.length; at += 1) {
    seen += buckets[at];
    if (total && seen >= share * total) return 1000 * bounds[Math.min(at, bounds.length - 1)];
  }
  return 0;
}

function show(now) {
  const t = now.totals;
  const seconds = before ? Math.max(0.1, now.time - before.time) : 1;
  const per = (name) => (before ? Math.max(0, t[name] - before.totals[name]) / seconds : 0);
  const fresh = before ? t.latency.map((v, i) => Math.max(0, v - before.totals.latency[i])) : t.latency;
  const p50 = percentile(now.bounds, fresh, 0.5);
  const p99 = percentile(now.bounds, fresh, 0.99);
  const sent = per("messages_sent");
  const published = per("messages_published");
  before = now;
  $("where").textContent = now.log;
  const state = $("state");
  const well = now.well && !now.missing;
  state.className = well ? "good" : "bad";
  state.textContent = well ? "all is well" : now.missing ? `${now.missing} processes do not answer` : "not well";
  cards([
    ["Connections", number(t.connections), `of ${number(t.users)} users`],
    ["Messages a second", number(published), `${number(t.messages_published)} so far`],
    ["Deliveries a second", number(sent), `${number(t.messages_sent)} so far`],
    ["Publish to write, p50", `${number(p50)} ms`],
    ["Publish to write, p99", `${number(p99)} ms`],
    ["Slow clients", number(t.clients_behind), `${number(t.queued_frames)} frames queued`],
  ]);
  draw("connections", t.connections, "");
  draw("deliveries", sent, "");
  draw("latency", p99, " ms");
  $("processes").replaceChildren(...now.processes.map((one) => {
    const row = make("tr");
    const head = make("th", one.pid);
    head.scope = "row";
    row.append(head, make("td", one.machine), make("td", one.host || "–"));
    for (const value of [number(one.connections), number(one.messages_sent), number(one.queued_frames), number(one.clients_behind), number(one.log_lag), bytes(one.memory), number(one.descriptors)]) row.append(make("td", value, "number"));
    return row;
  }));
  bars("tenants", now.tenants, "No streams are open.");
  bars("ages", now.ages, "No streams are open.");
  bars("troubles", now.troubles, "None: nothing was dropped, reset or refused.");
  const list = make("ul", undefined, "plain");
  list.append(make("li", `Log: ${now.log}${now.log_bytes ? `, ${bytes(now.log_bytes)}` : ""}`));
  list.append(make("li", `Newest message: ${now.last_event_id || "unknown"}`));
  for (const [part, is] of Object.entries(now.checks)) list.append(make("li", `${is ? "✓" : "✗"} ${part}`, is ? "good" : "bad"));
  for (const text of now.why) list.append(make("li", text, "warn"));
  $("health").replaceChildren(list);
}

function follow() {
  const source = new EventSource(`${base}events`);
  source.addEventListener("overview", (event) => show(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    $("state").className = "bad";
    $("state").textContent = "connection lost";
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, 3000);
  });
}

async function ask(path, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(base + path, options);
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(found.error || `the server answered ${answer.status}`);
  return found;
}

function submit(form, output, act) {
  $(form).addEventListener("submit", async (event) => {
    event.preventDefault();
    const values = Object.fromEntries(new FormData(event.target));
    const button = event.target.querySelector("button");
    button.disabled = true;
    try { $(output).replaceChildren(...(await act(values))); } catch (err) { $(output).replaceChildren(make("span", err.message, "bad")); }
    button.disabled = false;
  });
}

function id(text) {
  const cell = make("td", text, "id");
  cell.title = text;
  return cell;
}

const query = (values) => new URLSearchParams(Object.entries(values).filter((pair) => pair[1] !== "")).toString();

async function found(values, page) {
  const answer = await ask(`find?${query({ ...values, page: String(page) })}`);
  if (!answer.total) return [make("span", answer.hint || "No stream is open.", "dim")];
  const table = make("table");
  const top = make("tr");
  for (const name of ["User", "Tenant", "Topics", "State", "Waiting", "Sent", "Age", "Process", ""]) {
    const head = make("th", name);
    head.scope = "col";
    if (!name) head.append(make("span", "Disconnect"));
    top.append(head);
  }
  const head = make("thead");
  head.append(top);
  const body = make("tbody");
  for (const one of answer.streams) {
    const row = make("tr");
    row.append(id(one.user_id), id(one.tenant_id || "–"), make("td", one.topics.join(", ") || "–", "wide"), make("td", one.state), make("td", number(one.waiting), "number"), make("td", number(one.sent), "number"), make("td", `${number(one.age)} s`, "number"), make("td", one.pid));
    const cell = make("td");
    const button = make("button", "Disconnect", "plain");
    button.type = "button";
    button.setAttribute("aria-label", `Disconnect stream ${one.client_id} of user ${one.user_id}`);
    button.addEventListener("click", async () => {
      button.disabled = true;
      try { await ask("disconnect", { client_id: one.client_id }); button.textContent = "Done"; } catch (err) { button.textContent = err.message; }
    });
    cell.append(button);
    row.append(cell);
    body.append(row);
  }
  table.append(head, body);
  const scroll = make("div", undefined, "scroll");
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", "Streams found");
  scroll.append(table);
  const pager = make("div", undefined, "pager");
  const turn = (name, to, is) => {
    const button = make("button", name);
    button.type = "button";
    button.disabled = !is;
    button.addEventListener("click", async () => $("found").replaceChildren(...(await found(values, to))));
    return button;
  };
  pager.append(turn("Previous", page - 1, page > 0), make("span", `${number(answer.total)} streams, page ${page + 1} of ${answer.pages}`), turn("Next", page + 1, page + 1 < answer.pages));
  return [scroll, pager];
}

submit("find", "found", (values) => found(values, 0));
submit("send", "sent", async (values) => {
  const answer = await ask("send", values);
  const form = $("explain");
  form.elements.id.value = answer.id;
  if (values.target === "user") form.elements.user.value = values.to;
  return [make("span", `sent as ${answer.id}`, "good")];
});
submit("explain", "explained", async (values) => {
  const answer = await ask(`explain?${query(values)}`);
  const good = answer.verdict === "written" || answer.verdict === "replayed";
  return [make("strong", answer.verdict.replaceAll("_", " "), good ? "good" : "warn"), make("p", answer.text)];
});
follow();

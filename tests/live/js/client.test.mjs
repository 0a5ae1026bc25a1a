// What client.js promises, with the clock, chance and network of world.mjs.  Run by node --test.
import assert from "node:assert/strict";
import { test } from "node:test";

import { World, live, nothing, refusal, unreachable, whole } from "./world.mjs";

const WELCOME = 'retry: 2000\n\nid: e-1\nevent: welcome\ndata: {"client_id":"c","heartbeat":10}\n\n';
const header = (request, name) => new Headers(request.init.headers).get(name);

async function connected(options) {
  const world = new World();
  const stream = live();
  world.answers = [stream, live()];
  await world.connect(options);
  await stream.write(WELCOME);
  assert.equal(world.stream.state, "open");
  return [world, stream];
}

test("the request is that of a plain event stream", async () => {
  const world = new World();
  world.answers = [nothing];

  await world.connect({ headers: { Authorization: "Bearer t" } }, "/sse/stream?topics=a");

  const [request] = world.requests;
  assert.equal(request.url, "/sse/stream?topics=a");
  assert.equal(header(request, "Accept"), "text/event-stream");
  assert.equal(header(request, "Authorization"), "Bearer t");
  assert.equal(header(request, "Last-Event-ID"), null);
  assert.equal(request.init.credentials, "same-origin");
  assert.equal(request.init.cache, "no-store");
});

test("an event has parsed data, its text and its id", async () => {
  const [world, stream] = await connected();
  const paid = [];
  world.stream.addEventListener("paid", (event) => paid.push(event));

  await stream.write('id: e-2\nevent: paid\ndata: {"order":7}\n\nevent: paid\ndata: as it is\n\n');

  assert.deepEqual(paid.map(({ data }) => data), [{ order: 7 }, "as it is"]);
  assert.deepEqual(paid.map(({ text }) => text), ['{"order":7}', "as it is"]);
  assert.deepEqual(paid.map(({ lastEventId }) => lastEventId), ["e-2", "e-2"]);
});

test("a reconnect asks for what follows the last whole event", async () => {
  const [world, stream] = await connected();
  await stream.write("id: e-2\ndata: whole\n\nid: e-3\ndata: cut in tw");
  await stream.fail();

  await world.pass(2000);

  assert.deepEqual(world.events.map(({ type }) => type), ["welcome", "message"]);
  assert.equal(world.stream.lastEventId, "e-2");
  assert.equal(header(world.requests[1], "Last-Event-ID"), "e-2");
});

test("an id without an event moves the cursor, a stream without ids does not", async () => {
  const [world, stream] = await connected();
  world.answers = [whole("retry: 1000\n\nevent: error\ndata: {}\n\n"), nothing];
  await stream.write("id: e-9\n\n");
  await stream.end();

  await world.pass(5000);

  assert.equal(header(world.requests[1], "Last-Event-ID"), "e-9");
  assert.equal(header(world.requests[2], "Last-Event-ID"), "e-9");
});

test("an id given by the page is asked for; any text goes as UTF-8", async () => {
  const world = new World();
  world.answers = [nothing];

  await world.connect({ lastEventId: "ü-1" });

  assert.equal(header(world.requests[0], "Last-Event-ID"), "\u00c3\u00bc-1");
});

test("failures of every kind wait, ever longer, up to 30 s", async () => {
  const kinds = [refusal(502), refusal(503), refusal(429), refusal(404), unreachable,
    refusal(200, { "Content-Type": "text/html" }, "<h1>Maintenance</h1>"), refusal(500)];
  const world = new World();
  world.random = 1;
  world.answers = [...kinds, nothing];
  await world.connect();

  const waits = [];
  for (const [index] of kinds.entries()) {
    assert.equal(world.stream.state, "waiting");
    assert.equal(world.requests.length, index + 1);
    waits.push(world.wait);
    await world.pass(world.wait * 1000 - 1);
    assert.equal(world.requests.length, index + 1);
    await world.pass(1);
  }

  assert.deepEqual(waits, [3, 6, 12, 24, 30, 30, 30]);
  const said = world.states.filter(({ state }) => state === "waiting");
  assert.deepEqual(said.map(({ status }) => status), [502, 503, 429, 404, 0, 200, 500]);
  assert.equal(said[4].reason, "Failed to fetch");
  assert.match(said[5].reason, /text\/html/);
});

test("the jitter is full: from nothing to the whole of the wait", async () => {
  for (const random of [0, 0.25, 0.75]) {
    const world = new World();
    world.random = random;
    world.answers = [refusal(502), nothing];

    await world.connect();

    const first = world.states.find(({ state }) => state === "waiting");
    assert.equal(first.wait, 3 * random);
  }
});

test("a stream that opened begins the back-off anew", async () => {
  const stream = live();
  const world = new World();
  world.random = 1;
  world.answers = [refusal(502), refusal(502), stream, nothing];
  await world.connect();
  await world.pass(9000);
  await stream.write("data: x\n\n");
  assert.equal(world.stream.state, "open");

  await stream.end();

  assert.equal(world.wait, 3);
});

test("Retry-After is the least wait, in seconds or as a date, and not for ever", async () => {
  const world = new World();
  world.random = 1;
  const date = new Date(world.now + 20_000).toUTCString();
  world.answers = [refusal(503, { "Retry-After": "7" }), refusal(429, { "Retry-After": date }),
    refusal(503, { "Retry-After": "86400" }), refusal(503, { "Retry-After": "soon" }), nothing];

  await world.connect();
  assert.equal(world.wait, 7 + 3);
  await world.pass(10_000);
  assert.ok(world.wait > 10 + 6 - 2 && world.wait <= 10 + 6, `${world.wait}`);
  await world.pass(world.wait * 1000);
  assert.equal(world.wait, 60 + 12);
  await world.pass(world.wait * 1000);
  assert.equal(world.wait, 24);
});

test("the server's retry is the base of the back-off, within the broker's own bounds", async () => {
  for (const [said, wait] of [["5000", 5], ["0", 1], ["99999999999999999999", 60], ["1e3", 3], ["", 3]]) {
    const world = new World();
    world.random = 1;
    world.answers = [whole(`retry: ${said}\n\ndata: x\n\n`), nothing];
    await world.connect();
    assert.equal(world.wait, wait, said);
  }
});

test("after a goodbye the wait is what the server said, without jitter or growth", async () => {
  const [world, stream] = await connected();
  world.random = 1;
  const bye = 'retry: 4000\n\nid: e-2\nevent: close\ndata: {"reason":"max_age"}\n\n';
  await stream.write(bye);
  await stream.end();

  assert.equal(world.wait, 4);
  assert.equal(world.stream.reason, "max_age");
  assert.equal(world.stream.lastEventId, "e-2");

  world.answers = [whole(bye), whole(bye), refusal(502), nothing];
  await world.pass(4000);
  assert.equal(world.wait, 4);
  await world.pass(4000);
  assert.equal(world.wait, 4);
  world.random = 0.5;
  await world.pass(4000);
  assert.deepEqual([world.wait, world.stream.reason], [2, "502"]);  // a failure is one again
});

test("a server killed after its goodbye has said goodbye all the same", async () => {
  const [world, stream] = await connected();
  world.random = 1;
  await stream.write('event: close\ndata: {"reason":"drain"}\n\n');

  await stream.fail();

  assert.deepEqual([world.wait, world.stream.reason], [2, "drain"]);
});

test("a refusal for now waits as told, is never open, and is heard", async () => {
  const world = new World();
  world.random = 1;
  world.answers = [whole('retry: 5000\n\nevent: error\ndata: {"error":"too many connections"}\n\n'), nothing];

  await world.connect();

  assert.deepEqual(world.states.map(({ state }) => state), ["connecting", "waiting"]);
  assert.deepEqual([world.wait, world.stream.reason], [5, "too many connections"]);
  assert.deepEqual(world.events.map(({ type }) => type), ["error"]);
  await world.pass(5000);
  assert.equal(world.stream.state, "connecting");
});

test("an answer that is final closes the stream, with the reason", async () => {
  for (const status of [204, 400, 401, 403, 410]) {
    const world = new World();
    const json = status === 204 ? null : '{"error":"authentication failed"}';
    world.answers = [refusal(status, { "Content-Type": "application/json" }, json)];
    await world.connect();
    world.page.dispatchEvent(new Event("online"));

    await world.pass(3_600_000);
    world.stream.close();                  // it was already, for another reason

    assert.equal(world.requests.length, 1);
    assert.deepEqual(world.states.map(({ state }) => state), ["connecting", "closed"]);
    assert.equal(world.states[1].status, status);
    if (json) assert.equal(world.stream.reason, `${status}: authentication failed`);
  }
});

test("after 401 the page may bring another url, other headers, or say to try again", async () => {
  const url = new URL("http://localhost/sse/stream?ticket=3");
  for (const [answer, wanted, token] of [
    ["/stream?ticket=2", "/stream?ticket=2", "Bearer old"],
    [url, url.href, "Bearer old"],
    [{ headers: { Authorization: "Bearer new" } }, "/stream", "Bearer new"],
    [{ url: "/two", headers: {} }, "/two", null],
    [true, "/stream", "Bearer old"],
  ]) {
    const asked = [];
    const world = new World();
    const stream = live();
    world.answers = [refusal(401), stream];
    await world.connect({
      headers: { Authorization: "Bearer old" },
      renew: async (refused) => { asked.push(refused.status); return answer; },
    });
    await stream.write(WELCOME);

    assert.deepEqual(asked, [401]);
    assert.equal(world.stream.state, "open");
    assert.equal(world.requests[1].url, wanted);
    assert.equal(header(world.requests[1], "Authorization"), token);
    assert.equal(world.requests[1].at, world.requests[0].at);
  }
});

test("a renewal that the page declines, or that is refused too, is the end", async () => {
  for (const [answer, requests] of [[null, 1], [false, 1], ["/two", 2]]) {
    const world = new World();
    world.answers = [refusal(401)];
    await world.connect({ renew: () => answer });

    await world.pass(3_600_000);

    assert.equal(world.requests.length, requests);
    assert.deepEqual([world.stream.state, world.states.at(-1).status], ["closed", 401]);
  }
});

test("a renewal that fails is tried again later, and one used up by a failure is renewed", async () => {
  const answers = [() => { throw new Error("no network"); }, () => "/two", () => "/three"];
  const world = new World();
  const stream = live();
  world.answers = [refusal(401), refusal(401), refusal(502), refusal(401), stream];
  await world.connect({ renew: async () => answers.shift()() });
  assert.deepEqual([world.stream.state, world.stream.reason], ["waiting", "no network"]);

  await world.pass(20_000);
  await stream.write(WELCOME);

  assert.equal(world.stream.state, "open");
  assert.deepEqual(world.requests.map(({ url }) => url), ["/stream", "/stream", "/two", "/two", "/three"]);
});

test("silence for 2.5 heartbeats opens another connection, with the last id", async () => {
  const [world, stream] = await connected();
  world.random = 0;
  await world.pass(24_000);
  await stream.write(": a comment is a sign of life\n\n");
  await world.pass(24_999);
  assert.equal(world.stream.state, "open");

  await world.pass(1);

  assert.ok(stream.aborted);
  assert.match(world.states.find(({ state }) => state === "waiting").reason, /silent for 25 s/);
  assert.equal(header(world.requests[1], "Last-Event-ID"), "e-1");
});

test("a request that nobody answers is given up as well, and 0 watches nothing", async () => {
  const world = new World();
  world.answers = [nothing];
  await world.connect({ heartbeat: 4 });
  await world.pass(10_000);
  assert.equal(world.states.find(({ state }) => state === "waiting").reason, "silent for 10 s");

  const patient = new World();
  patient.answers = [nothing];
  await patient.connect({ heartbeat: 0 });
  await patient.pass(86_400_000);
  assert.equal(patient.requests.length, 1);
});

test("a heartbeat of years neither spins nor ends the stream", async () => {
  const [world, stream] = await connected();
  await stream.write('event: welcome\ndata: {"heartbeat":1e9}\n\n');

  assert.ok(world.timers.length && world.timers.every(({ at }) => at - world.now < 2 ** 31));
  await world.pass(86_400_000);
  assert.equal(world.stream.state, "open");
});

test("a network that is back, and a page that is shown, end a back-off but not what the server asked", async () => {
  const world = new World();
  world.random = 1;
  world.answers = [refusal(502), refusal(502), refusal(503, { "Retry-After": "20" }), nothing];
  await world.connect();
  world.page.dispatchEvent(new Event("online"));
  await world.pass(0);
  assert.equal(world.requests.length, 2);

  world.page.document.hidden = true;
  world.page.document.dispatchEvent(new Event("visibilitychange"));
  await world.pass(0);
  assert.equal(world.requests.length, 2);

  world.page.document.hidden = false;
  world.page.document.dispatchEvent(new Event("visibilitychange"));
  await world.pass(0);
  assert.equal(world.requests.length, 3);

  world.page.dispatchEvent(new Event("online"));
  await world.pass(0);
  assert.equal(world.requests.length, 3);
  await world.pass(world.wait * 1000);
  assert.equal(world.requests.length, 4);
});

test("a back-off that was ended does not go on beside the new connection", async () => {
  const world = new World();
  const stream = live();
  world.answers = [refusal(502), stream, nothing];
  await world.connect();
  world.page.dispatchEvent(new Event("online"));
  await world.pass(0);
  await stream.write(WELCOME);

  await world.pass(20_000);

  assert.equal(world.requests.length, 2);
  assert.equal(world.stream.state, "open");
});

test("a machine that wakes after a long sleep looks at its stream at once", async () => {
  for (const sign of ["visibilitychange", "resume"]) {
    const [world, stream] = await connected();
    world.now += 3_600_000;                // and no timer ran meanwhile

    world.page.document.dispatchEvent(new Event(sign));

    assert.ok(stream.aborted, sign);
  }
});

test("a clock that is set back does not stop the watch over silence", async () => {
  const [world, stream] = await connected();
  world.offset = -3_600_000;

  await world.pass(50_000);

  assert.ok(stream.aborted);
});

test("what comes on a connection that was given up is dropped", async () => {
  const world = new World();
  const stream = live({ deaf: true });
  world.answers = [stream, nothing];
  await world.connect();
  await stream.write(WELCOME);
  world.page.dispatchEvent(new Event("pagehide"));

  await stream.write("id: e-7\ndata: late\n\n");

  assert.deepEqual(world.events.map(({ type }) => type), ["welcome"]);
  assert.equal(world.stream.lastEventId, "e-1");
});

test("a page that goes into the cache closes its stream, and goes on where it was", async () => {
  const [world, stream] = await connected();

  world.page.dispatchEvent(new Event("pagehide"));
  await world.pass(3_600_000);
  world.page.dispatchEvent(new Event("online"));
  await world.pass(0);

  assert.ok(stream.aborted);
  assert.equal(world.requests.length, 1);
  assert.equal(world.stream.state, "waiting");

  world.page.dispatchEvent(new Event("pageshow"));
  world.page.dispatchEvent(new Event("pageshow"));
  await world.pass(0);
  assert.equal(world.requests.length, 2);
  assert.equal(header(world.requests[1], "Last-Event-ID"), "e-1");
});

test("no event comes after close(), and no request", async () => {
  const seen = [];
  const [world, stream] = await connected();
  world.stream.addEventListener("message", (event) => { seen.push(event.data); world.stream.close(); });

  await stream.write("id: e-2\ndata: one\n\nid: e-3\ndata: two\n\n");
  assert.equal(world.timers.length, 0);
  for (const type of ["pagehide", "pageshow", "online"]) world.page.dispatchEvent(new Event(type));
  await world.pass(3_600_000);

  assert.deepEqual(seen, ["one"]);
  assert.deepEqual([world.stream.state, world.stream.lastEventId], ["closed", "e-2"]);
  assert.ok(stream.aborted);
  assert.equal(world.requests.length, 1);
});

test("a listener hears nothing of an event at which onEvent closed the stream", async () => {
  const [world, stream] = await connected({ onEvent: ({ type }) => {
    if (type === "message") world.stream.close();
  } });
  const seen = [];
  world.stream.addEventListener("message", (event) => seen.push(event));

  await stream.write("data: x\n\n");

  assert.equal(world.stream.state, "closed");
  assert.deepEqual(seen, []);
});

test("close() at any other moment ends it too", async () => {
  const moments = {
    "before it began": async (world) => { world.answers = [live()]; void world.connect(); },
    "while it asks": async (world) => { world.answers = [nothing]; await world.connect(); },
    "while it waits": async (world) => { world.answers = [refusal(502)]; await world.connect(); },
    "while it renews": async (world) => {
      world.answers = [refusal(401), live()];
      await world.connect({ renew: () => new Promise(setImmediate).then(() => "/two") });
    },
  };
  for (const [moment, reach] of Object.entries(moments)) {
    const world = new World();
    await reach(world);
    const before = world.requests.length;
    world.stream.close();
    world.stream.close();
    await world.pass(3_600_000);
    assert.equal(world.stream.state, "closed", moment);
    if (moment !== "while it renews") assert.equal(world.requests.length, before, moment);
    assert.equal(world.states.filter(({ state }) => state === "closed").length, 1, moment);
  }
});

test("a callback may close the stream as soon as it hears of it", async () => {
  for (const when of ["connecting", "open", "waiting"]) {
    const world = new World();
    const stream = live();
    world.answers = [refusal(502), stream, nothing];
    await world.connect({ onState: (state) => { if (state === when) world.stream.close(); } });
    await world.pass(5000);
    if (when === "open") await stream.write(WELCOME);
    await world.pass(3_600_000);
    assert.equal(world.stream.state, "closed", when);
    assert.equal(world.requests.length, { connecting: 0, waiting: 1, open: 2 }[when], when);
    assert.deepEqual(world.events, [], when);
  }
});

test("what a callback throws is shown and stops nothing", async () => {
  const thrown = new Error("of the page");
  const [world, stream] = await connected({
    onEvent: () => { throw thrown; },
    onReset: () => { throw thrown; },
  });
  const seen = [];
  world.stream.addEventListener("reset", (event) => seen.push(event.data));
  world.stream.addEventListener("after", (event) => seen.push(event.data));

  await stream.write('event: reset\ndata: {"reason":"trimmed"}\n\nevent: after\ndata: 1\n\n');
  await world.pass(0);

  assert.deepEqual(seen, [{ reason: "trimmed" }, 1]);
  assert.equal(world.errors.length, 4);
  assert.ok(world.errors.every((error) => error === thrown));
});

test("onReset has the reason, before any event that follows", async () => {
  const order = [];
  const world = new World();
  const reset = 'id: e-9\nevent: reset\ndata: {"reason":"epoch"}\n\n';
  world.answers = [whole(`${reset}${WELCOME}`), nothing];

  await world.connect({
    lastEventId: "old-1",
    onReset: (data) => order.push(data.reason),
    onEvent: ({ type }) => order.push(type),
  });

  assert.deepEqual(order, ["reset", "epoch", "welcome"]);
});

test("an option that there is none of is refused by name", () => {
  const { SSEBroker } = new World().page;
  assert.throws(() => SSEBroker.connect("/stream", { onReest() {} }), /onReest/);
});

test("the page hears of the first moment, and of a stream on which nothing comes through", async () => {
  const world = new World();
  world.answers = [live()];
  await world.connect();
  assert.deepEqual(world.states.map(({ state, reason }) => [state, reason]), [["connecting", ""]]);

  await world.pass(4999);
  assert.equal(world.states.length, 1);
  await world.pass(1);

  assert.equal(world.states[1].state, "connecting");
  assert.match(world.states[1].reason, /nothing has come through for 5 s; is a proxy buffering/);

  const [heard] = await connected();
  await heard.pass(9000);
  assert.deepEqual(heard.states.map(({ state }) => state), ["connecting", "open"]);
});

test("opened waits for the first open, and fails with a stream that never was", async () => {
  const [world] = await connected();
  await world.stream.opened;

  const refused = new World();
  refused.answers = [refusal(403)];
  await refused.connect();
  await assert.rejects(refused.stream.opened, /403/);
});

test("a signal closes the stream, also one that was given too late", async () => {
  const abort = new AbortController();
  const [world, stream] = await connected({ signal: abort.signal });
  abort.abort();
  assert.ok(stream.aborted);
  assert.equal(world.stream.state, "closed");

  const late = new World();
  late.answers = [nothing];
  await late.connect({ signal: AbortSignal.abort() });
  assert.equal(late.requests.length, 0);
  assert.equal(late.stream.state, "closed");
});

test("handlers hear of their event and topic, until they are taken away", async () => {
  const [world, stream] = await connected({ topics: ["orders:*"] }, "/sse/stream");
  const heard = [];
  const hear = (name) => (event) => heard.push([name, event.data, event.topics]);
  const off = world.stream.on("paid", hear("paid"));
  world.stream.on("*", hear("any of 7"), { topic: "orders:7" });
  world.stream.on("paid", hear("other"), { topic: "bills:**" });
  world.stream.on("welcome", hear("welcome"));
  await stream.write("id: e-2\ntopic: orders:7\nevent: paid\ndata: 1\n\n");
  off();
  await stream.write("id: e-3\ntopic: orders:8\ntopic: bills:a:b\nevent: paid\ndata: 2\n\n");
  await stream.write("id: e-4\nevent: paid\ndata: 3\n\n");

  assert.deepEqual(heard, [
    ["paid", 1, ["orders:7"]], ["any of 7", 1, ["orders:7"]], ["other", 2, ["orders:8", "bills:a:b"]],
  ]);
});

test("a retained message is marked", async () => {
  const [world, stream] = await connected();
  const id = "0123456789ab-QEsOKQEsOKQEsOKQEsOKQEsO";
  await stream.write(`id: ${id}.r0\ndata: 1\n\nid: ${id}\ndata: 2\n\nid: order.r5\ndata: a sender's own id\n\n`);
  assert.deepEqual(world.events.slice(1).map(({ retained }) => retained), [true, false, false]);
});

test("topics stand in the URL, and change on the live stream without another one", async () => {
  const world = new World();
  const stream = live();
  world.answers = [stream, refusal(200), refusal(404), live()];
  await world.connect({ topics: ["a", "b:*"], headers: { Authorization: "Bearer t" } }, "/sse/stream?user_id=7");
  await stream.write(WELCOME);
  assert.equal(world.requests[0].url, "/sse/stream?user_id=7&topics=a%2Cb%3A*");

  await world.stream.subscribe("c");
  assert.deepEqual(world.stream.topics, ["a", "b:*", "c"]);
  const [, posted] = world.requests;
  assert.equal(posted.url, "/sse/subscriptions?user_id=7");
  assert.equal(posted.init.method, "POST");
  assert.equal(header(posted, "Authorization"), "Bearer t");
  assert.deepEqual(JSON.parse(posted.init.body), { client_id: "c", add: ["c"], remove: [] });
  assert.ok(!stream.aborted);

  await world.stream.unsubscribe("a");     // which the server does not know how to do
  await world.pass(0);
  assert.ok(stream.aborted);
  assert.equal(new URL(world.requests[3].url, "http://localhost").searchParams.get("topics"), "b:*,c");
  assert.equal(header(world.requests[3], "Last-Event-ID"), "e-1");
});

test("without a URL it asks where the page's script says, and from when the page was made", async () => {
  for (const [script, url, id] of [
    [{ dataset: { sseStream: "/app/sse/stream", lastEventId: "e-5" } }, "/app/sse/stream", "e-5"],
    [{ src: "http://localhost/app/sse/client.js?v=1", dataset: {} }, "http://localhost/app/sse/stream", null],
    [{ src: "http://localhost/bundle.js", dataset: {} }, "/sse/stream", null],
  ]) {
    const world = new World(script);
    world.answers = [nothing];
    world.page.SSEBroker.connect();
    await world.pass(0);
    assert.equal(world.requests[0].url, url);
    assert.equal(header(world.requests[0], "Last-Event-ID"), id);
  }
});

test("who asks for the past has a stream of its own, and so has who cannot name its group", async () => {
  for (const [url, base] of [["/sse/stream?since=30s", "http://localhost/"], ["/sse/stream", undefined]]) {
    const world = new World();
    world.answers = [nothing];
    world.page.navigator = { locks: { request: () => assert.fail("it wants to share") } };
    world.page.document.baseURI = base;

    await world.connect({}, url);
    await world.pass(0);

    assert.equal(world.requests.length, 1);
  }
});

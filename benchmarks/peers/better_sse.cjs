// better-sse with Express, as its README has it: a session per request, a channel for all.
const express = require("express");
const { createChannel, createSession } = require("better-sse");

const app = express();
const channel = createChannel();
const users = new Map();
const pad = "x".repeat(80);
const now = () => Number(process.hrtime.bigint()) / 1e9; // CLOCK_MONOTONIC, as the load client's
let sent = 0;
const text = () => `t=${now().toFixed(6).padStart(14, "0")} n=${String(sent++).padStart(10, "0")} ${pad}`;
const userId = (number) => `00000000-0000-4000-8000-${String(number).padStart(12, "0")}`;

app.get("/sse/stream", async (req, res) => {
  const session = await createSession(req, res);
  const user = req.query.user_id;
  users.set(user, session);
  session.once("disconnected", () => users.get(user) === session && users.delete(user));
  channel.register(session);
});

app.post("/send", (req, res) => {
  const started = now();
  for (let i = 0; i < Number(req.query.n); i++) {
    if (req.query.users) users.get(userId(i % Number(req.query.users))).push(text(), "message");
    else channel.broadcast(text(), "message");
  }
  res.json({ took: now() - started });
});

app.get("/ping", (req, res) => res.send("pong"));

app.listen(Number(process.argv[2]), "127.0.0.1", 4096);

"""A language model's answer that survives a reload, a restart and a second device.

Run:  flask --app samples/chat.py run
See:  http://localhost:5000/chats; ask, reload in the middle, open the address elsewhere, stop
      the server and start it again: the text goes on where it was, and nothing is written twice.

A thread writes the answer into the database and to the topic ``chat:<id>``, a tenth
of a second of text at a time.  The page renders what there is and streams what
follows; each piece says where it begins, so that one that comes again changes
nothing.  With Celery, :func:`answer` is the task: it needs the id and a broker.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from typing import Any

from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    jsonify,
    redirect,
    render_template_string,
    request,
)

from samples.chat_page import ASK, CHAT
from samples.common import database, rows, single
from sse_broker import SSE, Broker

SCHEMA = """CREATE TABLE IF NOT EXISTS chat
    (id TEXT PRIMARY KEY, question, text, status, beat REAL)"""
EVERY = 0.1  # seconds of text in one event
DEAD = 3.0  # seconds without a piece, after which another writer takes over
WORDS = (
    "You asked: {}. I am no model but a small stand-in, so here is what I can say about it."
    " The answer is written by a thread of the server, or by a Celery worker, and not by the"
    " request that asked. So it does not matter whether anybody listens: close this page, open"
    " it on your phone, restart the server. What was written is in the database; what follows"
    " comes by the stream, from the very character where the page was rendered. And as the"
    " text is kept, nobody pays for it twice. "
)


def model(question: str, before: str) -> Iterator[str]:
    """Write on after *before*."""
    # Here goes the call of your model's client, streaming, with *before* as the beginning of
    # its answer: for piece in client.stream(question, prefix=before): yield piece
    for word in (WORDS * 2).format(question, question)[len(before) :].split(" "):
        time.sleep(0.04)
        yield f"{word} "


def answer(broker: Broker, chat: str) -> None:
    """Write the answer to *chat* from where it stands to its end, unless it is cancelled."""
    with database(SCHEMA) as db:
        question, text = db.execute(
            "SELECT question, text FROM chat WHERE id = ?", (chat,)
        ).fetchone()
    piece, due = "", time.monotonic() + EVERY
    for word in model(question, text):
        piece += word
        if time.monotonic() >= due:
            if not _keep(broker, chat, text, piece):
                return
            text, piece, due = text + piece, "", time.monotonic() + EVERY
    if _keep(broker, chat, text, piece):
        _end(broker, chat, "done")


def _keep(broker: Broker, chat: str, text: str, piece: str) -> bool:
    """Store and send *piece*; say whether the answer is still wanted, and by this writer."""
    change = "UPDATE chat SET text = ?, beat = ? WHERE id = ? AND status = 'writing' AND text = ?"
    with database(SCHEMA) as db:
        kept = db.execute(change, (text + piece, time.time(), chat, text)).rowcount == 1
    if kept:
        at = len(text.encode("utf-16-le")) // 2  # as a page counts
        broker.send_to_topic(f"chat:{chat}", "text", {"at": at, "text": piece})
    return kept


def _end(broker: Broker, chat: str, status: str) -> None:
    with database(SCHEMA) as db:
        change = "UPDATE chat SET status = ? WHERE id = ? AND status = 'writing'"
        if db.execute(change, (status, chat)).rowcount:
            broker.send_to_topic(f"chat:{chat}", "end", {"status": status})


def make_blueprint(sse: SSE) -> Blueprint:
    blueprint = Blueprint("chat", __name__)

    def write(chat: str) -> None:
        arguments = (sse.broker, chat)
        threading.Thread(target=answer, args=arguments, name=f"chat-{chat}", daemon=True).start()

    def find(chat: str) -> dict[str, Any]:
        """Return the chat; have it written on if its writer is gone with its process."""
        with database(SCHEMA) as db:
            found = rows(db.execute("SELECT * FROM chat WHERE id = ?", (chat,)))
            if not found:
                abort(404)
            taken = db.execute(
                "UPDATE chat SET beat = ? WHERE id = ? AND status = 'writing' AND beat < ?",
                (time.time(), chat, time.time() - DEAD),
            ).rowcount
        if taken:
            write(chat)
        return found[0]

    @blueprint.get("/chats")
    def form() -> str:
        return ASK

    @blueprint.post("/chats")
    def ask() -> Any:
        chat, question = secrets.token_urlsafe(9), request.form.get("question", "").strip()
        if not 0 < len(question) <= 500:
            abort(400, "question must have 1 to 500 characters")
        with database(SCHEMA) as db:
            values = (chat, question, "", "writing", time.time())
            db.execute("INSERT INTO chat VALUES (?, ?, ?, ?, ?)", values)
        write(chat)
        return redirect(f"{request.path}/{chat}", 303)

    @blueprint.get("/chats/<chat>")
    def show(chat: str) -> str:
        moment = sse.last_event_id()  # before the text is read: what follows it is streamed
        return render_template_string(CHAT, moment=moment, **find(chat))

    @blueprint.get("/chats/<chat>.json")
    def state(chat: str) -> Response:
        return jsonify(find(chat))

    @blueprint.post("/chats/<chat>/cancel")
    def cancel(chat: str) -> Response:
        _end(sse.broker, chat, "cancelled")
        return jsonify(ok=True)

    return blueprint


def create_app() -> Flask:
    return single(make_blueprint)

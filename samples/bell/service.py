"""What rings the bell, for views and for tasks."""

from __future__ import annotations

from samples.bell.extensions import db, sse
from samples.bell.models import Notification


def notify(user_id: int, text: str) -> Notification:
    """Store a notification and push it when that is committed; the caller commits."""
    note = Notification(user_id=user_id, text=text)
    db.session.add(note)
    db.session.flush()  # it has an id now
    sse.after_commit(db.session).send_to_user(user_id, "notification", note.as_json())
    return note

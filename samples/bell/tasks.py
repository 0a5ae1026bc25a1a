"""What takes long, and tells its user when it is done."""

from __future__ import annotations

from celery import shared_task

from samples.bell.extensions import db, sse
from samples.bell.service import notify


@shared_task
def write_report(user_id: int, pages: int) -> None:
    """Write a report page by page; the last word of it rings the bell."""
    for page in range(1, pages + 1):
        sse.send_to_user(user_id, "report", {"page": page, "of": pages})
    notify(user_id, f"your report of {pages} pages is ready")
    db.session.commit()

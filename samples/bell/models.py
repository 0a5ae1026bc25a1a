"""People, and what they are notified of."""

from __future__ import annotations

from typing import Any

from flask_login import UserMixin
from werkzeug.security import check_password_hash, generate_password_hash

from samples.bell.extensions import db, login_manager


class User(UserMixin, db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(80), unique=True, nullable=False)
    password = db.Column(db.String(200), nullable=False)

    def knows(self, password: str) -> bool:
        return check_password_hash(self.password, password)


class Notification(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    user_id = db.Column(db.ForeignKey("user.id"), nullable=False)
    text = db.Column(db.String(200), nullable=False)

    def as_json(self) -> dict[str, Any]:
        return {"id": self.id, "text": self.text}


@login_manager.user_loader
def load_user(user_id: str) -> User | None:
    return db.session.get(User, int(user_id))


def add_people(*names: str) -> None:
    """Add people whose passwords are their names."""
    for name in names:
        if db.session.scalar(db.select(User).filter_by(name=name)) is None:
            db.session.add(User(name=name, password=generate_password_hash(name)))
    db.session.commit()

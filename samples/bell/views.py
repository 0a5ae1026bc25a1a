"""Pages and forms."""

from __future__ import annotations

from flask import Blueprint, abort, redirect, render_template, request, url_for
from flask_login import current_user, login_required, login_user, logout_user
from werkzeug.wrappers import Response

from samples.bell.extensions import db, sse
from samples.bell.models import Notification, User
from samples.bell.service import notify
from samples.bell.tasks import write_report

bell = Blueprint("bell", __name__, template_folder="templates")


@bell.get("/")
@login_required
def index() -> str:
    began = sse.last_event_id()  # before the state is read: what is sent meanwhile comes, too
    mine = db.select(Notification).filter_by(user_id=current_user.id)
    notes = db.session.scalars(mine.order_by(Notification.id.desc()).limit(20)).all()
    return render_template("bell/index.html", notes=notes, began=began)


@bell.route("/login", methods=["GET", "POST"])
def login() -> str | Response:
    if request.method == "POST":
        found = db.session.scalar(db.select(User).filter_by(name=request.form["name"]))
        if found is not None and found.knows(request.form["password"]):
            login_user(found)
            return redirect(url_for("bell.index"))
    return render_template("bell/login.html", failed=request.method == "POST")


@bell.post("/logout")
@login_required
def logout() -> Response:
    sse.broker.disconnect_user(current_user.id, "logged out")
    logout_user()
    return redirect(url_for("bell.login"))


@bell.post("/messages")
@login_required
def message() -> Response:
    found = db.session.scalar(db.select(User).filter_by(name=request.form["to"]))
    if found is None:
        abort(404, "there is nobody of that name")
    notify(found.id, f"{current_user.name}: {request.form['text'][:150]}")
    db.session.commit()
    return redirect(url_for("bell.index"))


@bell.post("/reports")
@login_required
def report() -> Response:
    write_report.delay(current_user.id, 3)
    return redirect(url_for("bell.index"))

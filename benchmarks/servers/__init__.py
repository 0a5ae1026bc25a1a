"""The applications that run under gunicorn: ours, and the peers that live in a Flask app."""

from benchmarks.servers.flask_sse_app import flask_sse_app
from benchmarks.servers.naive import naive
from benchmarks.servers.ours import ours, over_a_log

__all__ = ["flask_sse_app", "naive", "ours", "over_a_log"]

"""The rooms of the package, and its front door."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sse_broker
from sse_broker import Broker, errors
from sse_broker.core.streams import Streams

PACKAGE = Path(sse_broker.__file__).parent
CORE = ("errors", "config", "wire", "core")
ROOMS = {
    "errors": (),
    "config": ("errors",),
    "wire": ("errors", "wire"),
    "core": CORE,
    "logs": (*CORE, "logs"),
    "broker": (*CORE, "logs", "commit", "transport"),
    "commit": CORE,
    "outbox": (*CORE, "commit", "broker", "outbox"),
    "metrics": CORE,
    "transport": (*CORE, "transport"),
    "servers": (*CORE, "servers"),
    "gunicorn": (*CORE, "transport", "servers", "web", "gunicorn"),
    "gunicorn_conf": (),
    "limits": CORE,
    "web": (
        *CORE,
        "version",
        "logs",
        "broker",
        "commit",
        "limits",
        "metrics",
        "transport",
        "servers",
        "web",
    ),
    "testing": (*CORE, "broker", "web", "testing"),
    "app": (*CORE, "web"),
    "signals": ("core",),
    "version": (),
    "doctor": (*CORE, "broker", "version", "doctor"),
    "cli": (*CORE, "broker", "version", "doctor", "cli"),
    "__main__": ("cli",),
}
THIRD_PARTY = {
    "core": {"blinker"},
    "web": {"flask", "markupsafe", "werkzeug"},  # Flask brings them
    "gunicorn": {"gunicorn"},
    "app": {"flask", "werkzeug"},
    "testing": {"flask", "werkzeug", "pytest"},
    "cli": {"click", "flask"},  # Flask brings it
    "commit": {"sqlalchemy"},  # inside functions only, as the import test below proves
    "outbox": {"sqlalchemy"},
}


def files(room: str) -> list[Path]:
    single = PACKAGE / f"{room}.py"
    return [single] if single.exists() else sorted((PACKAGE / room).rglob("*.py"))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found.add(node.module or "")
            if node.module == "sse_broker":
                found |= {f"sse_broker.{alias.name}" for alias in node.names}
    return found - {"sse_broker"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_inward(room: str) -> None:
    assert files(room)
    for path in files(room):
        for name in imports(path):
            top, _, rest = name.partition(".")
            if top == "sse_broker":
                assert rest.split(".")[0] in ROOMS[room], f"{path.name} imports {name}"
            else:
                outside = THIRD_PARTY.get(room, set())
                assert top in sys.stdlib_module_names | outside, f"{path.name} imports {name}"


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ("sse_broker", *path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imported_modules(path: Path, known: dict[str, Path]) -> set[str]:
    """The files that one file imports, those for types alone and those inside functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            deeper = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= deeper & set(known) or {node.module or ""}
    return found & set(known)


def test_no_two_files_import_each_other() -> None:
    known = modules()
    rest = {name: imported_modules(path, known) - {name} for name, path in known.items()}
    while free := {name for name, wanted in rest.items() if not wanted & set(rest)}:
        rest = {name: wanted for name, wanted in rest.items() if name not in free}

    assert not rest, {name: sorted(wanted & set(rest)) for name, wanted in rest.items()}


def test_no_log_knows_another() -> None:
    logs = {"memory", "sqlite", "redis"}
    for log in logs:
        for path in [PACKAGE / "logs" / f"{log}.py", *(PACKAGE / "logs" / log).rglob("*.py")]:
            if path.exists():
                known = {name.split(".")[2] for name in imports(path) if name.count(".") >= 2}
                assert not known & (logs - {log}), path


def test_every_file_is_in_a_room_and_says_what_it_is() -> None:
    known = {path for room in ROOMS for path in files(room)} | {PACKAGE / "__init__.py"}
    for path in PACKAGE.rglob("*.py"):
        assert path in known, path
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_the_library_never_sleeps_and_never_splits_lines_by_itself() -> None:
    for path in PACKAGE.rglob("*.py"):
        code = re.sub(r"#.*", "", path.read_text())
        assert not re.search(r"\.splitlines\(|time\.sleep\(", code), path


def test_the_front_door_is_what_it_says() -> None:
    for name in sse_broker.__all__:
        assert getattr(sse_broker, name) is not None
    assert len(set(sse_broker.__all__)) == len(sse_broker.__all__) <= 24


def test_every_exception_is_also_had_where_it_was_before() -> None:
    for name in errors.__all__:
        assert getattr(sse_broker, name) is getattr(errors, name)
    with pytest.raises(AttributeError, match="no_such_name"):
        sse_broker.no_such_name


def test_a_broker_shows_what_an_application_calls() -> None:
    hosts_call = {name for name in vars(Streams) if not name.startswith("_")} - {
        *("start", "stop", "register", "health", "publish"),
    }
    assert not [name for name in hosts_call if hasattr(Broker, name)]


def test_importing_needs_flask_and_nothing_else() -> None:
    code = (
        "import sys, threading; import sse_broker, sse_broker.commit, sse_broker.outbox;"
        "bad = {'jwt', 'prometheus_client', 'gevent', 'redis', 'gunicorn', 'requests',"
        " 'sqlalchemy', 'psycopg', 'limits'};"
        "assert not bad & set(sys.modules); assert threading.active_count() == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


LOCKS = re.compile(r"(\.|^)_?(lock|turn|mutex|looking)$")
OUTWARD = re.compile(r"^_log\.|(^|\.)(spawn|fire|sleep|is_alive)$")


def test_nothing_is_logged_started_or_told_under_a_native_lock() -> None:
    """A handler of the log may wait, or switch greenlets; whoever meets the lock then stops."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.With) and any(
                LOCKS.search(ast.unparse(item.context_expr)) for item in node.items
            ):
                calls = [one for one in ast.walk(node) if isinstance(one, ast.Call)]
                bad = [
                    ast.unparse(one.func) for one in calls if OUTWARD.search(ast.unparse(one.func))
                ]
                assert not bad, f"{path}:{node.lineno} {bad}"

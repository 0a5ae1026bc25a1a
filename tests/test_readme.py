"""The README tells what the code does."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from sse_broker import errors
from sse_broker.config import _print_table
from sse_broker.web.refusal import STATUS

TEXT = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def between(name: str) -> str:
    return TEXT.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- end of {name} -->")[0]


@pytest.mark.parametrize("block", range(len(BLOCKS)))
def test_its_python_runs(block: int, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # it may make a file
    names: dict[str, object] = {"__name__": "app"}
    exec(compile(BLOCKS[block], f"README block {block}", "exec"), names)
    if "paid" in names:
        app = names["app"]
        answer = app.test_client().post(  # type: ignore[attr-defined]
            "/orders/7/paid?user=7b2c1c1e-4a3e-4a55-9d7e-0d6a2f2f1c11"
        )
        assert answer.text == "ok"


def test_its_settings_are_the_codes() -> None:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        _print_table()
    assert between("settings").strip() == shown.getvalue().strip()


def test_its_errors_are_the_codes() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (\d+) \|$", between("errors"), re.MULTILINE)
    assert rows == [(kind.__name__, kind.text, str(status)) for kind, status in STATUS.items()]
    assert {name for name, _, _ in rows} == set(errors.__all__) - {"BrokerError"}

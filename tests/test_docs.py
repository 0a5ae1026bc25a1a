"""The README and the documentation tell what the code does."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from sse_broker import errors
from sse_broker.config import _print_table
from sse_broker.web.refusal import STATUS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def between(page: str, name: str) -> str:
    text = (ROOT / page).read_text()
    return text.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- end of {name} -->")[0]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.name)
def test_the_python_of_a_page_runs_from_top_to_bottom(page: Path, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # it may make a file
    names: dict[str, object] = {"__name__": "app"}
    for number, block in enumerate(blocks(page, "python")):
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "py")], ids=lambda p: p.name)
def test_python_that_is_only_shown_is_python(page: Path) -> None:
    for number, block in enumerate(blocks(page, "py")):
        compile(block, f"{page.name}, block {number}", "exec")


def test_the_readme_s_app_answers() -> None:
    names: dict[str, object] = {"__name__": "app"}
    block = blocks(ROOT / "README.md", "python")[0].replace("sqlite:///sse.db", "memory://")
    exec(compile(block, "README", "exec"), names)
    app = names["app"]

    answer = app.test_client().post(  # type: ignore[attr-defined]
        "/orders/7/paid?user=7b2c1c1e-4a3e-4a55-9d7e-0d6a2f2f1c11"
    )

    assert answer.status_code == 200


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in LINK.findall(text):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


TRANSLATED = {"README.md": "README.zh-CN.md", "docs/tutorial.md": "docs/zh/tutorial.md"}


@pytest.mark.parametrize("page", TRANSLATED)
def test_a_translation_has_the_same_code_and_the_same_sections(page: str) -> None:
    def code(path: str) -> list[str]:
        found = re.findall(r"^```.*?^```", (ROOT / path).read_text(), re.DOTALL | re.MULTILINE)
        return [re.sub(r"  +#.*", "", block) for block in found]  # comments are translated

    def sections(path: str) -> int:
        return len(re.findall(r"^#+ ", (ROOT / path).read_text(), re.MULTILINE))

    assert code(TRANSLATED[page]) == code(page)
    assert sections(TRANSLATED[page]) == sections(page)


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_the_settings_are_the_codes() -> None:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        _print_table()
    assert between("docs/settings.md", "settings").strip() == shown.getvalue().strip()


def test_the_errors_are_the_codes() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (.*?) \| (\d+) \|$", between("docs/errors.md", "errors"), re.MULTILINE
    )
    assert rows == [(kind.__name__, kind.text, str(status)) for kind, status in STATUS.items()]
    assert {name for name, _, _ in rows} == set(errors.__all__) - {"BrokerError"}

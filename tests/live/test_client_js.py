"""client.js without a browser: its parser beside Python's, and its promises in node."""

from __future__ import annotations

import base64
import json
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sse_broker.wire.parse import Parser
from tests.live.conftest import need
from tests.live.servers import ROOT
from tests.live.test_wire_peers import FRAMES
from tests.wire.test_parse import CASES

pytestmark = pytest.mark.live

SCRIPTS = Path(__file__).parent / "js"
SIZES = [1, 2, 3, 7, 1_000_000]
PIECES = [
    *(b"\r", b"\n", b"\r\n", b"\n\n", b"\r\n\r\n", b":", b" ", b"\xef\xbb\xbf", b"\xff", b"\0"),
    *(b"data", b"data:", b"data: x", b"event: e", b"event:", b"id: 7", b"id:", b"id", b"x: y"),
    *(b"retry: 5", b"retry: -1", b"retry:", b"retry: 1e3", b": c", "\u2028ü🎈".encode()),
]


def streams() -> list[bytes]:
    """The cases of Python's parser, tricky texts, and 2,000 that nobody thought of."""
    dice = random.Random(7)
    made = (b"".join(dice.choices(PIECES, k=dice.randint(1, 25))) for _ in range(2000))
    cut = [FRAMES[: -dice.randint(1, 40)] for _ in range(3)]
    return [*(stream for stream, _ in CASES.values()), FRAMES, *cut, *made]


def as_python_reads(stream: bytes) -> dict[str, object]:
    parser = Parser()
    events = [[event.event, event.data, event.id] for event in parser.feed(stream)]
    return {"events": events, "id": parser.last_event_id, "retry": parser.retry}


def test_the_parser_reads_what_pythons_reads_in_any_chunks() -> None:
    node = need("node", "nodejs")
    given = streams()
    texts = [base64.b64encode(stream).decode() for stream in given]
    output = subprocess.run(
        [node, SCRIPTS / "parse.mjs"],
        input=json.dumps({"streams": texts, "sizes": SIZES}).encode(),
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout

    for stream, found in zip(given, json.loads(output), strict=True):
        expected = as_python_reads(stream)
        for size, got in zip(SIZES, found, strict=True):
            assert got == expected, (size, stream[:300])


def test_it_keeps_its_promises() -> None:
    node = need("node", "nodejs")

    ran = subprocess.run(
        [node, "--test", SCRIPTS / "client.test.mjs"], capture_output=True, text=True, timeout=60
    )

    assert ran.returncode == 0, ran.stdout
    assert re.search(r"^# pass [1-9]\d+$", ran.stdout, re.MULTILINE), "it ran hardly any test"


def test_what_is_served_is_what_its_source_says(built: tuple[bytes, str]) -> None:
    before, said = built

    assert (ROOT / "sse_broker/web/client.js").read_bytes() == before, "run make js, and commit"
    (size,) = re.findall(r"client\.js: \d+ bytes, (\d+) gzipped", said)
    assert int(size) <= 6 * 1024


def test_the_package_is_used_from_its_tarball_by_node_and_by_react(
    built: tuple[bytes, str], tmp_path: Path
) -> None:

    def run(*command: str) -> str:
        ran = subprocess.run(command, cwd=site, capture_output=True, text=True, timeout=180)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    site = ROOT / "js"
    run("npm", "pack", "--silent", "--pack-destination", str(tmp_path))
    site = tmp_path / "react"
    left = shutil.ignore_patterns("node_modules", "dist", "package-lock.json")
    shutil.copytree(ROOT / "samples/react", site, ignore=left)
    (tarball,) = tmp_path.glob("*.tgz")
    run("npm", "install", "--silent", "--no-fund", "--no-audit", str(tarball))

    told = "import('sse-broker').then(({ connect }) => console.log(typeof connect))"
    assert run("node", "-e", told).strip() == "function"
    run("npm", "run", "build")
    assert any("Last-Event-ID" in one.read_text() for one in site.glob("dist/assets/*.js"))

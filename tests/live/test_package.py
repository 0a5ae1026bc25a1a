"""What is published: whole, the same each time, and tested as it is installed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = (
    "tests/wire",
    "tests/core/test_registry.py",
    "tests/logs/test_memory.py",
    "tests/test_seed.py",
    "tests/test_layout.py",
    "tests/web/test_blueprint.py",
)
pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of this checkout with the virtual environment of the tests."""
    folder = tmp_path_factory.mktemp("release") / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    (folder / ".venv").symlink_to(Path(sys.prefix))
    return folder


def build(clone: Path) -> dict[str, str]:
    """Build and return the digests of what was built, by name."""
    stamps = [clone / "setup.cfg", clone / "pyproject.toml"]
    for one in stamps:  # the environment is that of the tests, however old it is
        os.utime(one, (0, 0))
    subprocess.run(["make", "-s", "dist"], cwd=clone, check=True, capture_output=True)
    found = sorted((clone / "dist").iterdir())
    return {one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in found}


def test_a_commit_is_built_to_the_same_bytes_each_time(clone: Path) -> None:
    first = build(clone)

    assert build(clone) == first
    assert [name.rpartition(".")[2] for name in first] == ["whl", "gz"]


def test_the_tests_of_the_sdist_pass_against_the_wheel(clone: Path, tmp_path: Path) -> None:
    build(clone)
    (wheel,) = (clone / "dist").glob("*.whl")
    (sdist,) = (clone / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    shutil.rmtree(source / "sse_broker")
    installed = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(installed)]
    subprocess.run([*pip, str(wheel)], check=True)

    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
    result = subprocess.run(
        [*command, "--deselect", "tests/web/test_blueprint.py::test_the_script_is_in_the_package"],
        cwd=source,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )

    assert result.returncode == 0, result.stdout[-3000:]
    for name in ("CHANGELOG.md", "docs/index.md", "samples/notifications.py", "Makefile"):
        assert (source / name).exists(), name

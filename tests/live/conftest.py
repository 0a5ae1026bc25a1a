"""Real parts for live tests: found, started on free ports, stopped by their process ids."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.live.servers import ROOT


def need(program: str, package: str, path: str | None = None) -> str:
    """Return the path of a program; without it skip, or fail in CI.

    *path* is where to look, if not in ``PATH``.
    """
    found = shutil.which(program, path=path)
    if found is None:
        hint = f"{program} is missing: apt-get install {package}"
        if os.environ.get("CI"):
            pytest.fail(hint)
        pytest.skip(hint)
    return found


@pytest.fixture(scope="session")
def built() -> tuple[bytes, str]:
    """Build the script and the npm package anew; what was served before, and what that printed."""
    need("npm", "npm")
    before = (ROOT / "sse_broker/web/client.js").read_bytes()
    ran = subprocess.run(["make", "js"], cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return before, ran.stdout


@pytest.fixture
def browser(tmp_path):
    """Chromium without a head, driven by chromedriver."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = need("chromium", "chromium")
    for switch in (
        "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run"
        " --disable-background-networking --disable-component-update --disable-sync"
        f" --window-size=1400,1250 --user-data-dir={tmp_path / 'profile'}"
    ).split():
        options.add_argument(switch)
    service = webdriver.ChromeService(need("chromedriver", "chromium-driver"))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()

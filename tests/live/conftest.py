"""Real parts for live tests: found, started on free ports, stopped by their process ids."""

from __future__ import annotations

import os
import shutil

import pytest


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

"""What is compiled or installed for the benchmarks, into benchmarks/build.

Each run makes the C programs it needs; ``python -m benchmarks.build`` what the peers need as
well.  What cannot be made is said, and left out of the run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BUILD = HERE / "build"
PEERS = HERE / "peers"
PYTHON = BUILD / "python" / "bin" / "python"
PROGRAMS = {"load": ("load", "basics", "streams", "publisher"), "limit": ("limit",)}
PIP = [
    "Flask>=3.0",
    "flask-sse==1.0",
    "redis>=5.0,<9",
    "gunicorn[gevent]>=24.1,<28",
    "gevent>=24.2",
]
PIP += ["sse-starlette==3.7.0", "uvicorn[standard]>=0.30"]
PIP += ["django==5.2.*", "django-eventstream==5.3.4", "daphne>=4.1"]
NPM = ["better-sse@0.16", "express@5"]
MERCURE = "github.com/dunglas/mercure@v0.24.2"
CENTRIFUGO = "github.com/centrifugal/centrifugo/v6@v6.9.1"


def c_programs() -> None:
    """Compile the load client and the limit."""
    BUILD.mkdir(exist_ok=True)
    compiler = shutil.which("cc")
    if compiler is None:
        raise SystemExit("a C compiler is missing: apt-get install gcc")
    for name, sources in PROGRAMS.items():
        program, files = BUILD / name, [HERE / "c" / f"{one}.c" for one in sources]
        newest = max(one.stat().st_mtime for one in (*files, HERE / "c" / "load.h"))
        if not program.exists() or program.stat().st_mtime < newest:
            flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program)]
            subprocess.run([compiler, *flags, *map(str, files)], check=True)


def python_peers() -> None:
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", str(PYTHON.parents[1])], check=True)
    pip = [str(PYTHON), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, *PIP], check=True)


def node_peers() -> None:
    BUILD.mkdir(exist_ok=True)
    npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(BUILD)]
    subprocess.run([*npm, *NPM], check=True)


def go_hub() -> None:
    _go("build", "-o", str(BUILD / "hub"), str(PEERS / "hub.go"))


def mercure() -> None:
    """Mercure comes as a library: its own program is no module of the proxy's."""
    if (BUILD / "mercure").exists():
        return
    folder = BUILD / "mercure-source"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(PEERS / "mercure" / "main.go", folder)
    if not (folder / "go.mod").exists():
        _go("mod", "init", "benchmark", folder=folder)
    _go("get", MERCURE, folder=folder)
    _go("mod", "tidy", folder=folder)
    _go("build", "-o", str(BUILD / "mercure"), ".", folder=folder)


def centrifugo() -> None:
    if not (BUILD / "centrifugo").exists():
        _go("install", CENTRIFUGO)


def _go(*arguments: str, folder: Path = HERE) -> None:
    env = {"GOBIN": str(BUILD), "GOPATH": str(BUILD / "go"), "GOFLAGS": "-modcacherw"}
    subprocess.run(["go", *arguments], check=True, env={**os.environ, **env}, cwd=folder)


def main() -> None:
    c_programs()
    for make in (python_peers, node_peers, go_hub, mercure, centrifugo):
        try:
            make()
        except (OSError, subprocess.CalledProcessError) as err:
            print(f"{make.__name__} is left out: {err}", file=sys.stderr)


if __name__ == "__main__":
    main()

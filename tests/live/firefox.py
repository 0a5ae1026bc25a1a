"""Firefox without a driver between: its own protocol, Marionette, spoken directly."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

from tests.live.servers import until

PREFERENCES = {
    "marionette.port": 0,  # a free one; it is in the file MarionetteActivePort
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
}


class Firefox:
    """The few commands of selenium's driver that the tests use, under the same names."""

    def __init__(self, program: str, profile: Path) -> None:
        profile.mkdir()
        lines = (f"user_pref({json.dumps(k)}, {json.dumps(v)});" for k, v in PREFERENCES.items())
        (profile / "user.js").write_text("\n".join(lines))
        options = ["--marionette", "--headless", "--no-remote", "--profile", str(profile)]
        self._process = subprocess.Popen([program, *options], stderr=subprocess.DEVNULL)
        port = profile / "MarionetteActivePort"
        until(lambda: port.exists() and port.read_text(), 60)
        self._socket = socket.create_connection(("127.0.0.1", int(port.read_text())), 30)
        self._file = self._socket.makefile("rb")
        self._number = 0
        self._receive()  # its greeting
        self._command("NewSession", capabilities={"alwaysMatch": {}})

    def _receive(self) -> Any:
        size = b""
        while not size.endswith(b":"):
            size += self._file.read(1)
        return json.loads(self._file.read(int(size[:-1])))

    def _command(self, name: str, **arguments: Any) -> Any:
        self._number += 1
        text = json.dumps([0, self._number, f"WebDriver:{name}", arguments])
        self._socket.sendall(f"{len(text.encode())}:{text}".encode())
        _, _, error, result = self._receive()
        assert error is None, error
        return result["value"] if isinstance(result, dict) and "value" in result else result

    def get(self, url: str) -> None:
        self._command("Navigate", url=url)

    def back(self) -> None:
        self._command("Back")

    def execute_script(self, script: str, *arguments: object) -> Any:
        return self._command("ExecuteScript", script=script, args=list(arguments))

    @property
    def title(self) -> str:
        return str(self._command("GetTitle"))

    @property
    def current_window_handle(self) -> str:
        return str(self._command("GetWindowHandle"))

    def new_tab(self) -> str:
        return str(self._command("NewWindow", type="tab", focus=True)["handle"])

    def switch(self, handle: str) -> None:
        self._command("SwitchToWindow", handle=handle, focus=True)

    def close(self) -> None:
        self._command("CloseWindow")

    def quit(self) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(30)

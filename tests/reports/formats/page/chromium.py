"""A headless Chromium, driven over its DevTools protocol through a pipe: nothing to install but the browser."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell", "chromium-headless-shell")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-extensions "
    "--disable-background-networking --hide-scrollbars --remote-debugging-pipe"
).split()  # fmt: skip
PATIENCE_SECONDS = 60.0


def installed() -> str | None:
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Tab:
    """One page. `events` holds all that the browser has reported so far, as (method, parameters)."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._to, self._from, self._rest, self._last = to_browser, from_browser, b"", 0
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        os.write(
            self._to, json.dumps(message | ({"sessionId": self._session} if self._session else {})).encode() + b"\0"
        )
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        limit = time.monotonic() + PATIENCE_SECONDS
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], max(0, limit - time.monotonic()))
            part = os.read(self._from, 1 << 20) if ready else b""
            assert part, "the browser sends no more"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        output = json.loads(message)
        if "method" in output:
            self.events.append((output["method"], output["params"]))
        return output

    def open(self, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Opens the page, and returns when all of it is loaded."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while "Page.loadEventFired" not in (method for method, _ in self.events):
            self._next()

    def events_of(self, *methods: str) -> list[dict[str, Any]]:
        return [parameters for method, parameters in self.events if method in methods]

    def value(self, expression: str) -> Any:
        """Returns the value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        code = {"Tab": 9, "Enter": 13}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            more = text if kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)

    def picture(self, *, whole: bool = True) -> bytes:
        """Returns a PNG of the whole page, or of what the window shows."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def pdf(self) -> bytes:
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)["data"])


@contextmanager
def tab(folder: Path) -> Iterator[Tab]:
    """Yields a page of a browser that ends with the block and keeps its files in `folder`."""
    browser = installed()
    assert browser is not None
    # The browser uses the descriptors 3 and 4 for the pipe, so ours start at 10.
    (for_it, ours), (mine, for_mine) = ([fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in os.pipe()] for _ in range(2))
    words = ["bash", "-c", f'exec "$@" 3<&{for_it} 4>&{for_mine}', "bash", browser, *FLAGS, f"--user-data-dir={folder}"]
    with subprocess.Popen(words, pass_fds=(for_it, for_mine), stderr=subprocess.DEVNULL) as process:
        try:
            yield Tab(ours, mine)
        finally:
            process.kill()
            for end in (for_it, ours, mine, for_mine):
                os.close(end)

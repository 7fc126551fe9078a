"""A headless browser, driven by Chromium's DevTools protocol over pipes."""

import base64
import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.helpers.peers import program
from tests.helpers.waiting import wait_until

_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--disable-extensions", "--hide-scrollbars",
    "--remote-debugging-pipe",
)  # fmt: skip
_BUTTONS = ("none", "left", "right")


@dataclass
class Browser:
    """A page of a browser.

    Attributes
    ----------
    commands, answers : file
        Messages to and from the browser; each ends with a zero byte.
    session : str
        Of the page.
    events : list of dict
        What the browser reported meanwhile, such as errors and requests.
    """

    commands: IO[bytes]
    answers: IO[bytes]
    session: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def send(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send a command and return its result."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.commands.write(json.dumps(message).encode() + b"\0")
        self.commands.flush()
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        parts = bytearray()
        while byte := self.answers.read(1):
            if byte == b"\0":
                answer: dict[str, Any] = json.loads(parts)
                return answer
            parts += byte
        raise EOFError("the browser ended")

    def attach(self) -> None:
        """Make a page and take it."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def run(self, script: str) -> Any:  # noqa: ANN401 - whatever the page gives
        """Return the value of an expression in the page; a promise is waited for."""
        done = self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def open(
        self,
        page: Path,
        width: int = 1280,
        height: int = 800,
        *,
        ratio: float = 1,
        touch: bool = False,
    ) -> None:
        """Open a page in a window of a size in CSS pixels, and wait until it shows its images."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=ratio, mobile=touch,
        )  # fmt: skip
        self.send("Emulation.setTouchEmulationEnabled", enabled=touch)
        self.send("Page.navigate", url=page.as_uri())
        wait_until(lambda: self.run("document.readyState === 'complete'"), "the page")
        self.settle()

    def settle(self) -> None:
        """Wait until the page has drawn all pixels."""
        done = "document.getElementById('canvas').dataset.complete === 'true'"
        wait_until(lambda: self.run(done), "the picture")

    def press(self, *keys: str) -> None:
        """Press and release keys."""
        for key in keys:
            for kind in ("keyDown", "keyUp"):
                self.send("Input.dispatchKeyEvent", type=kind, key=key)
        self.settle()

    def drag(self, start: tuple[float, float], end: tuple[float, float], button: int = 1) -> None:
        """Drag the mouse from one place of the window to another."""
        for kind, (x, y) in (
            ("mouseMoved", start),
            ("mousePressed", start),
            ("mouseMoved", end),
            ("mouseReleased", end),
        ):
            self.send(
                "Input.dispatchMouseEvent",
                type=kind, x=x, y=y, button=_BUTTONS[button], buttons=button, clickCount=1,
            )  # fmt: skip
        self.settle()

    def touch(self, *fingers: list[tuple[float, float]]) -> None:
        """Move fingers along places of the window, all at the same time."""
        for index, places in enumerate(zip(*fingers, strict=True)):
            points = [{"x": x, "y": y, "id": finger} for finger, (x, y) in enumerate(places)]
            kind = "touchMove" if index else "touchStart"
            self.send("Input.dispatchTouchEvent", type=kind, touchPoints=points)
        self.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        self.settle()

    def screenshot(self, path: Path) -> None:
        """Save what the window shows."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Run Debian's Chromium, with its files in a folder, until the block ends."""
    (own_read, write), (read, own_write) = os.pipe(), os.pipe()
    arguments = [program("chromium", "chromium"), *_OPTIONS, f"--user-data-dir={folder}"]
    # The browser reads commands from descriptor 3 and answers on descriptor 4.
    command = ["bash", "-c", f'exec "$@" 3<&{read} 4>&{write}', "bash", *arguments]
    with (
        os.fdopen(own_write, "wb") as commands,
        os.fdopen(own_read, "rb") as answers,
        subprocess.Popen(command, pass_fds=(read, write), stderr=subprocess.DEVNULL) as run,
    ):
        os.close(read)
        os.close(write)
        try:
            page = Browser(commands, answers)
            page.attach()
            yield page
        finally:
            run.kill()

"""A headless Chromium, driven through its DevTools pipe: no WebDriver, no port, nothing to install but the browser.

Keys go in as trusted events (`Input.dispatchKeyEvent`), so the page takes them for a person's.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
VARIABLE: Final = "CHROMIUM"
# Key → (DOM code, Windows key code, text it types).
KEYS: Final = {
    "Enter": ("Enter", 13, "\r"),
    " ": ("Space", 32, " "),
    "Backspace": ("Backspace", 8, ""),
    "Tab": ("Tab", 9, ""),
    "ArrowLeft": ("ArrowLeft", 37, ""),
    "ArrowUp": ("ArrowUp", 38, ""),
    "ArrowRight": ("ArrowRight", 39, ""),
    "ArrowDown": ("ArrowDown", 40, ""),
}
# The browser reads commands from descriptor 3 and writes to 4; a shell may not know numbers above 9.
_WRAPPER: Final = """
import os, sys
reading, writing = (os.dup(int(number)) for number in sys.argv[1:3])
os.dup2(reading, 3); os.dup2(writing, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def _letter(key: str) -> tuple[str, int, str]:
    """A letter or digit has its own key; where a sign has its key depends on the keyboard, so it gets none."""
    if not (key.isascii() and key.isalnum()):
        return "", 0, key
    return f"{'Digit' if key.isdecimal() else 'Key'}{key.upper()}", ord(key.upper()), key


class BrowserError(Exception):
    """The browser did not do what it was asked."""


def find() -> str | None:
    """Path of a Chromium: `CHROMIUM`'s, else the first on PATH."""
    named = os.environ.get(VARIABLE)
    return shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One tab of a browser of its own, with a profile that is thrown away."""

    def __init__(self, program: str, profile: Path) -> None:
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        command = [program, "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        command += ["--no-first-run", "--no-default-browser-check", "--disable-gpu", "--mute-audio"]
        command += ["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"]
        if os.geteuid() == 0:
            command.append("--no-sandbox")  # Chromium's sandbox refuses root; the page is our own
        self.process = subprocess.Popen(
            [sys.executable, "-c", _WRAPPER, str(to_browser), str(from_browser), *command, "about:blank"],
            pass_fds=(to_browser, from_browser),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._pending = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = next(t for t in self.ask("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")
        self.ask("Emulation.setFocusEmulationEnabled", enabled=True)  # a window in front, with its focus drawn

    def ask(self, method: str, timeout: float = 60.0, **parameters: Any) -> dict[str, Any]:
        """Send one command and wait for its answer; events that come meanwhile are kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session and not method.startswith(("Browser.", "Target.")):
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + timeout
        while True:
            answer = self._next(deadline, method)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _next(self, deadline: float, method: str) -> dict[str, Any]:
        while b"\0" not in self._pending:
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            block = os.read(self._in, 1 << 20) if ready else b""
            if not block:
                raise BrowserError(f"{method}: the browser {'has ended' if ready else 'does not answer'}")
            self._pending += block
        line, _, self._pending = self._pending.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def value(self, expression: str) -> Any:
        """What an expression is in the page: for looking, never for doing."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in found:
            raise BrowserError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def until(self, expression: str, timeout: float = 60.0) -> None:
        """Wait until an expression holds."""
        deadline = time.monotonic() + timeout
        while not self.value(expression):
            if time.monotonic() > deadline:
                raise BrowserError(f"never came true in {timeout:g} s: {expression}")
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """Press and let go of one key."""
        code, number, text = KEYS.get(key) or _letter(key)
        about = {"key": key, "code": code, "windowsVirtualKeyCode": number, "nativeVirtualKeyCode": number}
        self.ask("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **about)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text: str) -> None:
        """Press one key after another."""
        for letter in text:
            self.press(letter)

    def go(self, address: str) -> None:
        """Open an address and wait until it is loaded."""
        self.ask("Page.navigate", url=address)
        self.until(f"location.href === {json.dumps(address)} && document.readyState === 'complete'")

    def size(self, width: int, height: int, dark: bool = False) -> None:
        """Be a window of this size, in the light or in the dark."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if width < 600 else 1,
            mobile=False,
        )
        wishes = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
        self.ask("Emulation.setEmulatedMedia", features=[{"name": k, "value": v} for k, v in wishes.items()])

    def picture(self, path: Path) -> None:
        """A PNG of the window."""
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        """End the browser."""
        with contextlib.suppress(BrowserError, OSError):
            self.ask("Browser.close", timeout=10.0)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self._in)
        os.close(self._out)


@contextlib.contextmanager
def opened(program: str, profile: Path) -> Iterator[Page]:
    """A page that is closed at the end, whatever happens."""
    page = Page(program, profile)
    try:
        yield page
    finally:
        page.close()

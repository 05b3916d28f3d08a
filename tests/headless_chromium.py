"""Chromium without a window, steered over a pipe by its DevTools protocol."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Chromium:
    """One browser with one tab; it notes every request and every complaint.

    ``requests`` holds the addresses that were asked for, ``given_up`` those that the page did
    not wait for, ``held`` those that ``hold`` keeps from the server, and ``complaints`` what the
    console said of errors and warnings, but for connections that could not be made.
    """

    def __init__(self, profile: Path) -> None:
        browser = next(filter(None, map(shutil.which, BROWSERS)), None)
        if browser is None:
            pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
        self.requests: list[str] = []
        self.given_up: list[str] = []
        self.held: list[str] = []
        self._asked: dict[str, str] = {}
        self.complaints: list[str] = []
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()

        def give_pipes() -> None:
            # The browser reads from 3 and writes to 4; neither end may be one of these yet.
            high = (os.dup(commands), os.dup(answers))
            spare = [os.dup(end) for end in high] if min(high) <= 4 else high
            os.dup2(spare[0], 3)
            os.dup2(spare[1], 4)

        self._process = subprocess.Popen(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--remote-debugging-pipe",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            close_fds=False,
            preexec_fn=give_pipes,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._unread = b""
        self._number = 0
        self._session = ""
        self._attach()

    def _attach(self) -> None:
        tabs = self.tell("Target.getTargets")["targetInfos"]
        tab = next(each["targetId"] for each in tabs if each["type"] == "page")
        attached = self.tell("Target.attachToTarget", targetId=tab, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.tell(f"{domain}.enable")

    def tell(self, method: str, **parameters):
        """Send one command; returns its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            found = self._read()
            if found.get("id") == self._number:
                assert "error" not in found, found
                return found["result"]
            self._note(found)

    def run(self, script: str):
        """The value of an expression in the page."""
        answer = self.tell("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, (script, answer)
        return answer["result"].get("value")

    def wait_for(self, script: str, secs: float = 20.0):
        """The first true value of an expression that is asked for again and again."""
        until = time.monotonic() + secs
        while time.monotonic() < until:
            if value := self.run(script):
                return value
            time.sleep(0.05)
        shown = self.run("document.body.innerText")
        raise AssertionError(f"{script} did not come within {secs} s: {shown[:2000]}")

    def open(self, url: str) -> None:
        self.tell("Page.navigate", url=url)
        self.wait_for(f"document.readyState === 'complete' && location.href.startsWith('{url}')")

    def press(self, key: str) -> None:
        code = {"Enter": 13, "Escape": 27, "Tab": 9}[key]
        text = {"Enter": "\r"}.get(key, "")
        for kind in ("keyDown", "keyUp"):
            self.tell(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                text=text if kind == "keyDown" else "",
            )

    def show_as(self, width: int, height: int, scheme: str = "light", mobile: bool = False) -> None:
        """The size of the window in pixels, and the colours that the system prefers."""
        self.tell(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=mobile,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.tell("Emulation.setEmulatedMedia", features=[feature])

    def hold(self, pattern: str) -> None:
        """Keep requests whose address fits, with ``*`` for anything, until ``let_go``."""
        self.tell("Fetch.enable", patterns=[{"urlPattern": pattern}])

    def let_go(self) -> None:
        """Let the held requests reach the server after all."""
        self.tell("Fetch.disable")

    def wait_until(self, has_come: Callable[[], object], secs: float = 20.0) -> None:
        """Until something has become true of what this browser notes."""
        until = time.monotonic() + secs
        while not has_come():
            assert time.monotonic() < until, (self.requests[-20:], self.given_up, self.held)
            # Events are read while an answer is waited for.
            self.run("0")
            time.sleep(0.05)

    def picture(self) -> bytes:
        """What is seen, as PNG."""
        return base64.b64decode(self.tell("Page.captureScreenshot", format="png")["data"])

    def _read(self) -> dict:
        while b"\0" not in self._unread:
            got = os.read(self._answers, 1 << 16)
            assert got, "the browser has gone"
            self._unread += got
        message, self._unread = self._unread.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event: dict) -> None:
        parameters = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
            self._asked[parameters["requestId"]] = parameters["request"]["url"]
        elif event.get("method") == "Network.loadingFailed" and parameters["canceled"]:
            self.given_up.append(self._asked[parameters["requestId"]])
        elif event.get("method") == "Fetch.requestPaused":
            self.held.append(parameters["request"]["url"])
        elif event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(parameters["exceptionDetails"]))
        elif event.get("method") == "Log.entryAdded":
            entry = parameters["entry"]
            if "net::ERR_CONNECTION" not in entry["text"]:
                self.complaints.append(f"{entry['text']} {entry.get('url')}")
        elif event.get("method") == "Runtime.consoleAPICalled":
            self.complaints.append(json.dumps(parameters["args"]))

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)
        os.close(self._commands)
        os.close(self._answers)

    def __enter__(self):
        return self

    def __exit__(self, *_exception) -> None:
        self.close()

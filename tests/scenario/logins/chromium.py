# A headless Chromium, told what to do over its debugging protocol by a pipe: messages in JSON, a zero byte after each.
from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import trio

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WITHIN = 40.0  # seconds for anything that is waited for; a start takes two alone, much more on a busy machine
SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-proxy-server"),
    *("--ignore-certificate-errors", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--window-size=900,640", "--remote-debugging-pipe"),
)


class Chromium:
    """One page of it. `events`: what it told without being asked, such as errors, once that is enabled."""

    def __init__(self, folder: Path) -> None:
        assert PROGRAM is not None
        its_input, self._input = os.pipe()
        self._output, its_output = os.pipe()
        self._process = subprocess.Popen(
            [
                "bash",
                "-c",
                'exec "$0" "$@" 3<&$IN 4>&$OUT',
                PROGRAM,
                *SWITCHES,
                f"--user-data-dir={folder}",
                "about:blank",
            ],
            env={**os.environ, "IN": str(its_input), "OUT": str(its_output), "HOME": str(folder)},
            pass_fds=(its_input, its_output),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(its_input)
        os.close(its_output)
        os.set_blocking(self._output, False)
        self._buffer, self._id, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []

    async def attach(self) -> None:
        found = await self.call("Target.getTargets")
        page = next(each["targetId"] for each in found["targetInfos"] if each["type"] == "page")
        self._session = (await self.call("Target.attachToTarget", targetId=page, flatten=True))["sessionId"]

    async def call(self, method: str, **params: object) -> dict[str, Any]:
        self._id += 1
        message = {"id": self._id, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._input, json.dumps(message).encode() + b"\0")
        with trio.fail_after(WITHIN):
            while (answer := await self._message()).get("id") != self._id:
                if "method" in answer:
                    self.events.append(answer)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)

    async def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = await self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return found["result"].get("value")

    async def until(self, script: str) -> None:
        """Wait until an expression is true in whatever page there is by then."""
        with trio.fail_after(WITHIN):
            while await self.run(script) is not True:
                await trio.sleep(0.05)

    async def picture(self, **options: object) -> bytes:
        return base64.b64decode((await self.call("Page.captureScreenshot", format="png", **options))["data"])

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._input)
        os.close(self._output)

    async def _message(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            await trio.lowlevel.wait_readable(self._output)
            data = os.read(self._output, 1 << 20)
            assert data, "chromium has ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

"""A headless Chromium, driven through its DevTools: no driver, no further library."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

PATIENCE_S = 60.0
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1000,640", "--remote-debugging-port=0",
    "--ignore-certificate-errors",
)  # fmt: skip


class Page:
    """One page; `frames`: what came over its websockets, `asked`: the URLs it loaded."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.frames = ""
        self.asked: list[str] = []
        self._heard = asyncio.Event()

    async def run(self) -> None:
        async for message in self._socket:
            said = message.json()
            if said.get("id") in self._answers:
                self._answers.pop(said["id"]).set_result(said)
            elif said.get("method") == "Network.webSocketFrameReceived":
                frame = said["params"]["response"]
                if frame["opcode"] == 2:
                    self.frames += base64.b64decode(frame["payloadData"]).decode(errors="replace")
            elif said.get("method") == "Network.requestWillBeSent":
                self.asked.append(said["params"]["request"]["url"])
            self._heard.set()

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        answer = asyncio.get_running_loop().create_future()
        self._answers[self._number] = answer
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        said = await asyncio.wait_for(answer, PATIENCE_S)
        assert "error" not in said, said
        result: dict[str, Any] = said["result"]
        return result

    async def js(self, expression: str) -> Any:
        said = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return said["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until the page says yes."""
        async with asyncio.timeout(PATIENCE_S):
            while not await self.js(expression):  # noqa: ASYNC110 - a page tells nobody
                await asyncio.sleep(0.05)

    async def shows(self, text: str) -> None:
        """Wait until the screen's process has sent a text to the terminal."""
        async with asyncio.timeout(PATIENCE_S):
            while text not in self.frames:
                self._heard.clear()
                await self._heard.wait()

    async def key(self, name: str, code: int) -> None:
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code)

    async def picture(self) -> bytes:
        said = await self.call("Page.captureScreenshot", format="png")
        return base64.b64decode(said["data"])


@asynccontextmanager
async def browser(chromium: str, folder: Path) -> AsyncIterator[Page]:
    """A page of a fresh Chromium."""
    words = [chromium, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*words, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        told = folder / "DevToolsActivePort"
        async with asyncio.timeout(PATIENCE_S):
            while not told.exists() or "\n" not in told.read_text():  # noqa: ASYNC110 - Chromium tells nobody
                await asyncio.sleep(0.05)
        port = told.read_text().split("\n", maxsplit=1)[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                pages = [one for one in await answer.json(content_type=None) if one["type"] == "page"]
            async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                reading = asyncio.create_task(page.run())
                await page.call("Network.enable")
                await page.call("Page.enable")
                try:
                    yield page
                finally:
                    reading.cancel()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

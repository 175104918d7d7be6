"""Screens in a browser: textual-serve's terminal behind a login with a badge. Nothing comes from outside the plant.

A badge (file of people) opens a session: a cookie no script can read, sent by no other site, over TLS only where there
is TLS. It ends after `idle_s` without a key (on a wall: without a screen), or when the person leaves; then its screens
end, too. What a person does at a station needs the badge at the station's own window besides: a session only looks.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
import shlex
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import WSMsgType, web
from textual_serve.app_service import AppService
from textual_serve.download_manager import DownloadManager

from ifpp.errors import SettingsError
from ifpp.log import get_logger
from ifpp.model.clock import Clock
from ifpp.settings import People
from ifpp.trust.people import recognise
from ifpp.tui.words import Words

_COOKIE = "ifpp_session"
_FORM = "ifpp_form"
_TRIES, _TRIES_S = 5, 60.0
_MOST_SESSIONS, _MOST_SCREENS = 64, 16
_LONGEST_FORM = 4096
_LONGEST_MESSAGE = 64 * 1024
_STOP_S = 5.0
_WIDEST, _TALLEST = 500, 200
_LOOK_S = 1.0
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self';"
        " img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_STYLE = """
@font-face{font-family:'Roboto Mono';src:url(/static/fonts/RobotoMono-VariableFont_wght.ttf)}
html,body{margin:0;height:100%;background:#262626;color:#c4c4c4;font:18px 'Roboto Mono',monospace;overflow:hidden}
form{max-width:26em;margin:20vh auto;padding:0 1em}
input,button{font:inherit;padding:.5em;width:100%;box-sizing:border-box;margin:.4em 0;background:#111;color:#fff;
border:2px solid #9a9a9a}button{background:#c4c4c4;color:#111}.wrong{background:#ffdf3c;color:#000;padding:.5em}
.over{display:none}.over form{margin:.5em 0 0;padding:0}
body.-closed .over{display:block;position:fixed;top:0;left:0;right:0;padding:.7em;z-index:9;
background:#c00000;color:#fff}
"""
log = get_logger("web")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Session:
    """Somebody who has shown a badge; `seen_s`: when the last key came, `walls`: open screens that wait for none."""

    name: str
    role: str
    seen_s: float
    walls: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Sessions:
    """Who is logged in, by the hash of the cookie, and how often an address was wrong."""

    def __init__(self, people: Callable[[], People], clock: Clock, idle_s: float) -> None:
        self._people, self._clock, self._idle_s = people, clock, idle_s
        self._sessions: dict[str, Session] = {}
        self._wrong: dict[str, deque[float]] = {}
        self._asking = asyncio.Lock()

    async def login(self, badge: str, address: str) -> str | None:
        """Return a new cookie, None for a badge nobody has. Raises PermissionError when it was wrong too often."""
        async with self._asking:  # one badge at a time: each costs 16 MiB, and tries are counted in order
            now_s = self._clock.monotonic()
            wrong = self._wrong.setdefault(address, deque(maxlen=_TRIES))
            if len(wrong) == _TRIES and now_s - wrong[0] < _TRIES_S:
                raise PermissionError(address)
            try:
                who = await asyncio.to_thread(recognise, self._people(), badge)
            except SettingsError:
                wrong.append(now_s)
                self._forget(now_s)
                log.warning("web.refused", address=address)
                return None
            self._wrong.pop(address, None)
            self.expire()
            while len(self._sessions) >= _MOST_SESSIONS:
                self._end(next(iter(self._sessions)))
            cookie = secrets.token_urlsafe(32)
            self._sessions[_hashed(cookie)] = Session(who.name, who.role, now_s)
            log.info("web.login", person=who.name, address=address)
            return cookie

    def of(self, request: web.Request) -> Session | None:
        """Return whose request this is."""
        self.expire()
        return self._sessions.get(_hashed(request.cookies.get(_COOKIE, "")))

    def touch(self, session: Session) -> None:
        """A key came."""
        session.seen_s = self._clock.monotonic()

    def logout(self, request: web.Request) -> None:
        """End a session and its screens."""
        self._end(_hashed(request.cookies.get(_COOKIE, "")))

    def expire(self) -> None:
        """End the sessions nobody used for long."""
        now_s = self._clock.monotonic()
        for key in [key for key, one in self._sessions.items() if not one.walls and now_s - one.seen_s > self._idle_s]:
            self._end(key)

    def _end(self, key: str) -> None:
        if (session := self._sessions.pop(key, None)) is not None:
            session.over.set()
            log.info("web.logout", person=session.name)

    def _forget(self, now_s: float) -> None:
        for address in [one for one, wrong in self._wrong.items() if now_s - wrong[-1] > _TRIES_S]:
            del self._wrong[address]


def _hashed(cookie: str) -> str:
    return sha256(cookie.encode()).hexdigest()


class Screens:
    """The pages, and one process of `command` for each browser window."""

    def __init__(
        self, command: Sequence[str], sessions: Sessions, words: Words, *, secure: bool, wall: bool = False
    ) -> None:
        """`wall`: nobody presses keys there, so a session lasts while its screen is open."""
        self._command, self._sessions, self._words, self._secure = shlex.join(command), sessions, words, secure
        self._wall = wall
        self._open = 0

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application(middlewares=[_guarded], client_max_size=_LONGEST_FORM)
        static = Path(str(files("textual_serve"))) / "static"
        app.add_routes([
            web.get("/", self._page), web.get("/login", self._form), web.post("/login", self._login),
            web.post("/logout", self._logout), web.get("/ws", self._socket), web.static("/static", static),
            web.get("/style.css", self._style),
        ])  # fmt: skip
        return app

    async def _style(self, _: web.Request) -> web.Response:
        return web.Response(text=_STYLE, content_type="text/css")

    async def _page(self, request: web.Request) -> web.Response:
        if self._sessions.of(request) is None:
            raise web.HTTPSeeOther("/login")
        size = request.query.get("fontsize", "")
        size = size if size.isdigit() and 8 <= int(size[:3]) <= 96 else "16"
        scheme = "wss" if self._secure else "ws"
        body = (
            '<link rel="stylesheet" href="/static/css/xterm.css"><script src="/static/js/textual.js"></script>'
            f'</head><body><div class="over">{escape(self._words("web.over"))}'
            f'<form method="post" action="/logout"><button>{escape(self._words("web.leave"))}</button></form></div>'
            f'<div id="terminal"'
            f' class="textual-terminal" data-session-websocket-url="{scheme}://{escape(request.host)}/ws"'
            f' data-font-size="{size}"></div>'
        )
        return self._html(body, "ifpp")

    async def _form(self, request: web.Request) -> web.Response:
        return self._asked(request, "", 200)

    def _asked(self, request: web.Request, wrong: str, status: int) -> web.Response:
        """Show the form, with a secret of its own that only this site's page can send back."""
        token = request.cookies.get(_FORM) or secrets.token_urlsafe(24)
        words = self._words
        said = f'<p class="wrong" role="alert">{escape(wrong)}</p>' if wrong else ""
        body = (
            f'</head><body><form method="post" action="/login" autocomplete="off">{said}'
            f'<label for="badge">{escape(words("web.badge"))}</label>'
            '<input id="badge" name="badge" type="password" autofocus required maxlength="256">'
            f'<input type="hidden" name="token" value="{escape(token)}">'
            f"<button>{escape(words('web.enter'))}</button></form>"
        )
        answer = self._html(body, words("web.title"), status)
        answer.set_cookie(_FORM, token, httponly=True, secure=self._secure, samesite="Strict", path="/login")
        return answer

    async def _login(self, request: web.Request) -> web.Response:
        sent = await request.post()
        token, badge = str(sent.get("token", "")), str(sent.get("badge", ""))
        if not _own(request, self._secure) or not hmac.compare_digest(
            token.encode(), request.cookies.get(_FORM, "\0").encode()
        ):
            raise web.HTTPForbidden
        try:
            cookie = await self._sessions.login(badge, request.remote or "")
        except PermissionError:
            return self._asked(request, self._words("web.often"), 429)
        if cookie is None:
            return self._asked(request, self._words("web.wrong"), 401)
        answer = web.Response(status=303, headers={"Location": "/"})
        answer.set_cookie(_COOKIE, cookie, httponly=True, secure=self._secure, samesite="Strict", path="/")
        return answer

    async def _logout(self, request: web.Request) -> web.Response:
        if not _own(request, self._secure):
            raise web.HTTPForbidden
        self._sessions.logout(request)
        answer = web.Response(status=303, headers={"Location": "/login"})
        answer.del_cookie(_COOKIE, path="/")
        return answer

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        session = self._sessions.of(request)
        if session is None:
            raise web.HTTPUnauthorized
        if not _own(request, self._secure):  # cookies go with it whoever's page asks: the browser says whose it is
            raise web.HTTPForbidden
        if self._open >= _MOST_SCREENS:
            raise web.HTTPServiceUnavailable
        socket = web.WebSocketResponse(heartbeat=15, max_msg_size=_LONGEST_MESSAGE)
        await socket.prepare(request)

        async def close() -> None:
            await socket.close()

        service = AppService(
            self._command,
            write_bytes=socket.send_bytes,
            write_str=socket.send_str,
            close=close,
            download_manager=DownloadManager(),
        )
        self._open += 1
        session.walls += self._wall
        watch = asyncio.create_task(self._watch(session, socket), name="web session")
        try:
            await service.start(*_size(request.query.get("width", ""), request.query.get("height", "")))
            await self._carry(session, socket, service)
        finally:
            watch.cancel()
            self._open -= 1
            session.walls -= self._wall
            self._sessions.touch(session)
            await _end(service)
        return socket

    async def _watch(self, session: Session, socket: web.WebSocketResponse) -> None:
        """Close a screen when its session ends."""
        while not session.over.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(session.over.wait(), _LOOK_S)
            self._sessions.expire()
        await socket.close()

    async def _carry(self, session: Session, socket: web.WebSocketResponse, service: AppService) -> None:
        """Carry what the browser sends, until it goes; what is none of textual-serve's messages ends it."""
        async for message in socket:
            try:
                parts: list[Any] = message.json() if message.type == WSMsgType.TEXT else [""]
                kind, *rest = parts
                if kind == "stdin":
                    self._sessions.touch(session)
                    await service.send_bytes(str(rest[0]).encode())
                elif kind == "resize":
                    await service.set_terminal_size(*_size(rest[0]["width"], rest[0]["height"]))
                elif kind == "ping":
                    await socket.send_json(["pong", rest[0]])
                elif kind in ("blur", "focus"):
                    await (service.blur() if kind == "blur" else service.focus())
            except (ValueError, TypeError, LookupError):
                return

    def _html(self, body: str, title: str, status: int = 200) -> web.Response:
        head = f'<!DOCTYPE html><html lang="{self._words.language}"><head><meta charset="utf-8"><title>{escape(title)}'
        page = f'{head}</title><link rel="stylesheet" href="/style.css">{body}</body></html>'
        return web.Response(text=page, content_type="text/html", status=status)


@web.middleware
async def _guarded(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Every answer forbids the browser what the pages do not need."""
    try:
        answer = await handler(request)
    except web.HTTPException as error:
        error.headers.update(_HEADERS)
        raise
    if not answer.prepared:
        answer.headers.update(_HEADERS)
    return answer


def _own(request: web.Request, secure: bool) -> bool:
    """Whether a page of this very site asks: its origin has our scheme, host and port."""
    origin = urlsplit(request.headers.get("Origin", ""))
    return origin.scheme == ("https" if secure else "http") and origin.netloc == request.host


def _size(width: object, height: object) -> tuple[int, int]:
    """Return a terminal's size within bounds; raises ValueError for none."""
    return (
        min(max(1, int(str(width or 80))), _WIDEST),
        min(max(1, int(str(height or 24))), _TALLEST),
    )


async def _end(service: AppService) -> None:
    """Ask the screen's process to leave, and see it gone; one that does not is ended."""
    process = service._process
    try:
        async with asyncio.timeout(_STOP_S):
            await service.stop()
            if process is not None:
                await process.wait()
    except (TimeoutError, OSError):
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

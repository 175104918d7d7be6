"""The HTTPS face of the simulated SM-DP+ (SGP.22 v2, 6.5.2), with the troubles of a network set at will.

    POST https://host:port/gsma/rsp2/es9plus/<function>   JSON in, JSON out; handleNotification answers 204

`troubles` maps a function to what happens to its next calls, one entry a call: "slow" (until `slow_s` are over),
"cut" (the connection ends, nothing was done), "cut_after" (it was done, the answer is lost), "garbage", "oversize",
or an HTTP status as "503".
"""

from __future__ import annotations

import asyncio
import json
import ssl
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ifpp.sim import pki
from ifpp.sim.smdp_plus import FailedError, SmdpPlus

_PATH = "/gsma/rsp2/es9plus/{function}"
_PROTOCOL = {"X-Admin-Protocol": "gsma/rsp/v2.2.0"}
_OVERSIZE = 32 * 1024 * 1024


class SmdpServer:
    """Serves one SM-DP+ on a port of its own; `round_trip_s` is waited before each answer.

    `connections` counts those that were accepted. The SM-DP+'s address becomes ``localhost:port`` at `start`.
    """

    def __init__(self, smdp: SmdpPlus, tls: pki.Holder, *, round_trip_s: float = 0.0, slow_s: float = 3600.0) -> None:
        self.smdp = smdp
        self.troubles: dict[str, list[str]] = defaultdict(list)
        self.connections = 0
        self._known: set[int] = set()
        self._tls = tls
        self._round_trip_s = round_trip_s
        self._slow_s = slow_s
        self._runner: web.AppRunner | None = None

    async def start(self, port: int = 0) -> str:
        """Listen on the loopback; returns the address."""
        app = web.Application()
        app.router.add_post(_PATH, self._handle)
        self._runner = web.AppRunner(
            app, handle_signals=False, access_log=None, keepalive_timeout=120, shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=_context(self._tls))
        await site.start()
        number = self._runner.addresses[0][1]
        self.smdp.address = f"localhost:{number}"
        return self.smdp.address

    async def stop(self) -> None:
        """Stop listening and cut what is open."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        function = request.match_info["function"]
        if request.transport is not None and id(request.transport) not in self._known:
            self._known.add(id(request.transport))
            self.connections += 1
        troubles = self.troubles[function]
        trouble = troubles.pop(0) if troubles else ""
        if trouble == "cut":
            return _cut(request)
        body = await request.read()
        await asyncio.sleep(self._slow_s if trouble == "slow" else self._round_trip_s)
        if trouble.isdecimal():
            return web.Response(status=int(trouble))
        answer = self._answer(function, body)
        if trouble == "cut_after":
            return _cut(request)
        if trouble == "garbage":
            return web.Response(text="<html>welcome</html>", content_type="text/html", headers=_PROTOCOL)
        if trouble == "oversize":
            return web.Response(body=b" " * _OVERSIZE, content_type="application/json", headers=_PROTOCOL)
        return answer

    def _answer(self, function: str, body: bytes) -> web.Response:
        try:
            members = self.smdp.call(function, json.loads(body))
        except FailedError as failed:
            code = {"subjectCode": failed.subject, "reasonCode": failed.reason, "message": failed.message}
            return _json({"header": _header("Failed", {"statusCodeData": code})})
        except (KeyError, ValueError):
            return web.Response(status=400)
        if members is None:
            return web.Response(status=204, headers=_PROTOCOL)
        return _json({"header": _header("Executed-Success", {}), **members})


def _header(status: str, more: dict[str, Any]) -> dict[str, Any]:
    return {"functionExecutionStatus": {"status": status, **more}}


def _json(document: dict[str, Any]) -> web.Response:
    return web.Response(body=json.dumps(document).encode(), content_type="application/json", headers=_PROTOCOL)


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


def _context(holder: pki.Holder) -> ssl.SSLContext:
    """The server's side of TLS; OpenSSL takes certificate and key from files only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    key = holder.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tls.pem")
        path.touch(0o600)
        path.write_bytes(holder.certificate.public_bytes(Encoding.PEM) + key)
        context.load_cert_chain(path)
    return context

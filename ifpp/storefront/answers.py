"""How the store answers: JSON documents, and Problems where something was refused."""

from __future__ import annotations

import msgspec
from aiohttp import web

from ifpp.errors import FAULTS
from ifpp.model.messages import Problem


def document(content: msgspec.Struct) -> web.Response:
    """Return a message as JSON."""
    return web.Response(body=msgspec.json.encode(content), content_type="application/json")


def problem(status: int, code: str, detail: str, where: str = "") -> web.Response:
    """Return a refusal with its fault code and advice."""
    told = Problem(code=code, detail=detail, advice=FAULTS[code].advice, where=where)
    response = document(told)
    response.set_status(status)
    return response

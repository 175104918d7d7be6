"""Profile Loading Reports on their way to an SM-DPf over HTTPS (SGP.41, Esbpp), and its answer on the way back.

PUT URL/<report id> with the file as it was written, and in headers `Ifpp-Key-Id` and `Ifpp-Signature` (base64) of the
factory. Its id names a report for ever: sent twice, it is the same report. 200 brings the acknowledgement, with the
same two headers when the SM-DPf signs; 202 promises it for later.
"""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

import aiohttp

from ifpp.errors import CustodyError, ServiceError
from ifpp.line.report import digest_of
from ifpp.store.records import ReportRow

KEY_ID, SIGNATURE = "Ifpp-Key-Id", "Ifpp-Signature"
_CHUNK_BYTES = 64 * 1024
_LEAST_ANSWER_BYTES = 64 * 1024
_ANSWER_BYTES_AN_ITEM = 1024
_TAKEN, _PROMISED = 200, 202
_LATER = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Answer:
    """An acknowledgement that lies in `path`; `signature` is what the header says, "" when there was none."""

    path: Path
    signature: str


@dataclass(frozen=True, slots=True)
class Addressee:
    """Where reports for one SM-DPf go; `tls` None takes the CAs of this machine."""

    url: str
    timeout_s: float
    tls: ssl.SSLContext | None = None


async def send(report: ReportRow, path: Path, to: Addressee, answer: Path) -> Answer | None:
    """Send one signed report; what comes back is written to `answer`. None: taken, the answer comes later.

    Raises CustodyError REPORT.UNSIGNED, REPORT.CHANGED before anything is sent; ServiceError REPORT.UNREACHABLE when
    it may be sent again (then it may have arrived), REPORT.NOT_TAKEN when the SM-DPf does not want it; FILE.WRITE.
    """
    if not report.key_id:
        raise CustodyError("REPORT.UNSIGNED", "the report was written without a key", where=report.report_id)
    if digest_of(path) != report.sha256:
        raise CustodyError("REPORT.CHANGED", "the file is not what was written", where=str(path))
    headers = {
        "Content-Type": "application/jsonl",
        KEY_ID: report.key_id,
        SIGNATURE: b64encode(report.signature).decode(),
    }
    url = f"{to.url.rstrip('/')}/{report.report_id}"
    limit = _LEAST_ANSWER_BYTES + _ANSWER_BYTES_AN_ITEM * report.items
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=to.timeout_s)) as session,
            session.put(
                url,
                data=_chunks(path),
                headers=headers,
                allow_redirects=False,
                ssl=True if to.tls is None else to.tls,
            ) as response,
        ):
            if response.status == _PROMISED:
                return None
            if response.status != _TAKEN:
                _refuse(response.status, url)
            with _new(answer) as stream:
                await _keep(response, stream, limit, url)
            return Answer(answer, response.headers.get(SIGNATURE, ""))
    except aiohttp.InvalidURL as error:
        raise ServiceError("REPORT.NOT_TAKEN", "not a URL", where=url[:200]) from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        what = str(error) or type(error).__name__
        raise ServiceError("REPORT.UNREACHABLE", what[:200], where=url) from error


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk


def _new(path: Path) -> BinaryIO:
    try:
        return path.open("wb")
    except OSError as error:
        raise CustodyError("FILE.WRITE", f"cannot be made ({error.strerror})", where=str(path)) from error


async def _keep(response: aiohttp.ClientResponse, stream: BinaryIO, limit: int, url: str) -> None:
    total = 0
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        total += len(chunk)
        if total > limit:
            raise ServiceError("REPORT.NOT_TAKEN", f"an answer of more than {limit} bytes", where=url)
        stream.write(chunk)


def _refuse(status: int, url: str) -> NoReturn:
    code = "REPORT.UNREACHABLE" if status >= 500 or status in _LATER else "REPORT.NOT_TAKEN"
    raise ServiceError(code, f"HTTP {status}", where=url)

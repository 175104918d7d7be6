"""The station's half of the store's HTTP interface; the other half is `ifpp.storefront`."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from hashlib import sha256 as digest_of
from types import TracebackType
from typing import NoReturn, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from ifpp.errors import FAULTS, CustodyError, IfppError, ServiceError, SupplyError
from ifpp.model.messages import (
    Claim,
    ClaimRequest,
    ExpectedAnswer,
    ExpectedQuestion,
    LeaseAnswer,
    LeaseQuestion,
    Problem,
    ReleaseNotice,
    SentNotice,
)

_MAX_ANSWER_BYTES = 16 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024
_KINDS: dict[str, type[IfppError]] = {
    "EID": SupplyError,
    "SKU": SupplyError,
    "REGION": SupplyError,
    "BPP": SupplyError,
    "JOB": SupplyError,
    "UNIT": SupplyError,
    "CUSTODY": CustodyError,
}


def _plain(value: object) -> str:
    """Write an Eid or Iccid as the text it is."""
    if isinstance(value, str):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} in a document")


_encoder = msgspec.json.Encoder(enc_hook=_plain)
Tls = ssl.SSLContext | Callable[[], ssl.SSLContext]
D = TypeVar("D", Claim, LeaseAnswer, ExpectedAnswer)
_problem = msgspec.json.Decoder(Problem)


class StoreClient:
    """Use as an async context manager, or end with `close`; connections are kept alive between calls.

    Every method raises ServiceError STORE.UNREACHABLE when the store does not answer in `timeout_s` or cannot be
    reached (then the call may have been carried out: all of them may be repeated), STORE.REFUSED when it answers in
    words we do not share, and the store's own error otherwise (SupplyError, CustodyError or ServiceError by code).
    """

    def __init__(self, base_url: str, timeout_s: float, *, tls: Tls | None = None) -> None:
        self._base_url = base_url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> StoreClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def claim(self, request: ClaimRequest) -> Claim:
        """Claim the packages of one chip; errors as in `ifpp.store.factory.Factory.claim`."""
        return await self._ask("/v1/claims", request, Claim)

    async def leases(self, question: LeaseQuestion) -> LeaseAnswer:
        """Ask how claims made ahead stand."""
        return await self._ask("/v1/leases", question, LeaseAnswer)

    async def expected(self, question: ExpectedQuestion) -> ExpectedAnswer:
        """Ask which chips may be claimed ahead."""
        return await self._ask("/v1/expected", question, ExpectedAnswer)

    async def package(self, sha256: str) -> bytes:
        """Return one package byte for byte, its digest checked; raises SupplyError BPP.NOT_FOUND."""
        body = await self._call("GET", f"/v1/packages/{quote(sha256, safe='')}")
        if digest_of(body).hexdigest() != sha256:
            raise self._refused(f"the package of {len(body)} bytes does not have the digest {sha256[:64]}")
        return body

    async def sent(self, package_id: str, attempt_id: str, station_id: str) -> None:
        """Tell, before it leaves, that the first byte that can spend the key leaves.

        Raises CustodyError CUSTODY.TRANSITION when the lease is not this attempt's: then nothing may be sent.
        """
        notice = SentNotice(attempt_id=attempt_id, station_id=station_id)
        await self._call("POST", f"/v1/packages/{quote(package_id, safe='')}/sent", notice)

    async def release(self, attempt_id: str, station_id: str) -> None:
        """Give back what the attempt claimed and did not send."""
        await self._call(
            "POST", f"/v1/claims/{quote(attempt_id, safe='')}/release", ReleaseNotice(station_id=station_id)
        )

    # ---- inside -----------------------------------------------------------------------------------

    async def _ask(self, path: str, question: msgspec.Struct, kind: type[D]) -> D:
        body = await self._call("POST", path, question)
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._refused(f"the answer is no {kind.__name__}: {error}") from error

    def _shown(self) -> ssl.SSLContext | bool:
        """What a new connection shows; those that are open keep what they have shown."""
        found = self._tls() if callable(self._tls) else self._tls
        return True if found is None else found

    async def _call(self, method: str, path: str, document: msgspec.Struct | None = None) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        body = None if document is None else _encoder.encode(document)
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            async with self._session.request(
                method,
                self._base_url + path,
                data=body,
                headers=headers,
                allow_redirects=False,
                ssl=self._shown(),
            ) as response:
                answer = await self._read(response)
                status = response.status
        except aiohttp.InvalidURL as error:
            raise self._refused(f"not a URL: {self._base_url[:80]}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            what = str(error) or type(error).__name__
            raise ServiceError("STORE.UNREACHABLE", what[:200], where=self._base_url) from error
        if not 200 <= status < 300:
            self._raise_problem(status, answer)
        return answer

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        chunks: list[bytes] = []
        total = 0
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            total += len(chunk)
            if total > _MAX_ANSWER_BYTES:
                raise self._refused(f"an answer of more than {_MAX_ANSWER_BYTES} bytes")
            chunks.append(chunk)
        return b"".join(chunks)

    def _raise_problem(self, status: int, answer: bytes) -> NoReturn:
        try:
            problem = _problem.decode(answer)
        except (msgspec.DecodeError, UnicodeDecodeError):
            if status >= 500:  # something between us and the store says that the store is away
                raise ServiceError("STORE.UNREACHABLE", f"HTTP {status}", where=self._base_url) from None
            raise self._refused(f"HTTP {status} without a problem document") from None
        if problem.code not in FAULTS:
            raise self._refused(f"{problem.code[:40]}: {problem.detail[:200]}")
        kind = _KINDS.get(problem.code.partition(".")[0], ServiceError)
        raise kind(problem.code, problem.detail, where=problem.where)

    def _refused(self, detail: str) -> ServiceError:
        return ServiceError("STORE.REFUSED", detail, where=self._base_url)

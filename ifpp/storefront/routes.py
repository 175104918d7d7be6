"""What the store answers, to whom: one table. What is not in it is refused, whoever asks."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

import msgspec

from ifpp.model.messages import (
    Claim,
    ClaimRequest,
    ExpectedAnswer,
    ExpectedQuestion,
    Health,
    LeaseAnswer,
    LeaseQuestion,
    Readiness,
    ReleaseNotice,
    SentNotice,
    UnitGate,
)
from ifpp.trust.callers import CallerRole

_Roles = frozenset[CallerRole]
_STATION: _Roles = frozenset({CallerRole.STATION})
_ALL: _Roles = frozenset(CallerRole)

_ID = "[0-9A-Za-z][0-9A-Za-z._:-]{0,127}"
PARAMETERS = {"attempt_id": _ID, "package_id": _ID, "sha256": "[0-9a-f]{64}", "eid": "[0-9]{32}"}
"""What each part of a path in braces looks like: a regular expression for all of it."""


@dataclass(frozen=True, slots=True)
class Route:
    """One operation; `operation` names its handler and its series.

    `takes`: the document in the request; `gives`: the document, or "bytes", or None for an empty answer (204).
    """

    method: str
    path: str
    operation: str
    summary: str
    roles: frozenset[CallerRole]
    takes: type[msgspec.Struct] | None = None
    gives: type[msgspec.Struct] | str | None = None

    @property
    def status(self) -> int:
        """The HTTP status of success."""
        return HTTPStatus.NO_CONTENT if self.gives is None else HTTPStatus.OK

    @property
    def parameters(self) -> list[str]:
        """The names in the path, in order."""
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]


ROUTES = (
    Route("POST", "/v1/claims", "claim", "Claim the packages of one chip", _STATION, ClaimRequest, Claim),
    Route("POST", "/v1/claims/{attempt_id}/release", "release", "Give back what was not sent", _STATION, ReleaseNotice),
    Route("POST", "/v1/packages/{package_id}/sent", "sent", "Say that the first byte leaves", _STATION, SentNotice),
    Route("POST", "/v1/leases", "leases", "Ask how claims made ahead stand", _STATION, LeaseQuestion, LeaseAnswer),
    Route(
        "POST", "/v1/expected", "expected", "Ask for chips to claim ahead", _STATION, ExpectedQuestion, ExpectedAnswer
    ),
    Route("GET", "/v1/packages/{sha256}", "package", "Fetch a package byte for byte", _STATION, gives="bytes"),
    Route("GET", "/v1/units/{eid}/gate", "gate", "Ask whether a unit may leave", _ALL, gives=UnitGate),
    Route("GET", "/v1/openapi.json", "openapi", "This description", _ALL, gives="json"),
    Route("GET", "/healthz", "health", "The process is alive", _ALL, gives=Health),
    Route("GET", "/readyz", "ready", "The database answers", _ALL, gives=Readiness),
)

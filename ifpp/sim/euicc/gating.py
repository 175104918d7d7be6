"""Which ES10 function answers in which state of the factory services (FPX/1 10.9), as one table.

A function that is refused answers status word 6985. Keys of the table are request tags; operations of the dialect stand
as F9 followed by their tag. What is not listed is not gated.
"""

from __future__ import annotations

from enum import IntEnum, auto

F9_STATUS = 0xF9A0
F9_LIST = 0xF9A1
F9_DELETE = 0xF9A2
F9_LOCK = 0xF9A3


class Stage(IntEnum):
    """How far production has come; reserved keys count as remaining."""

    KEYS_LEFT = 0
    NO_KEYS = 1
    LOCKED = 2


class Gate(IntEnum):
    OPEN = auto()
    SHUT = auto()
    IF_CONNECTIVITY_TEST = auto()
    IF_REWORK = auto()  # SGP.41 A.4: profiles go before the keys do
    IF_EITHER = auto()


_ALWAYS = (Gate.OPEN, Gate.OPEN, Gate.OPEN)
_FACTORY = (Gate.OPEN, Gate.OPEN, Gate.SHUT)
_FIELD = (Gate.SHUT, Gate.OPEN, Gate.OPEN)
_PROFILE_STATE = (Gate.IF_CONNECTIVITY_TEST, Gate.OPEN, Gate.OPEN)
_DISABLE = (Gate.IF_EITHER, Gate.OPEN, Gate.OPEN)
_DELETE = (Gate.IF_REWORK, Gate.OPEN, Gate.OPEN)

# request tag -> gate by stage (KEYS_LEFT, NO_KEYS, LOCKED)
GATES: dict[int, tuple[Gate, Gate, Gate]] = {
    0xBF3E: _ALWAYS,  # GetEID
    0xBF20: _ALWAYS,  # GetEuiccInfo1
    0xBF22: _ALWAYS,  # GetEuiccInfo2
    0xBF3C: _ALWAYS,  # GetEuiccConfiguredAddresses
    0xBF43: _ALWAYS,  # GetRAT
    F9_STATUS: _ALWAYS,
    F9_LIST: _FACTORY,
    F9_DELETE: _FACTORY,
    F9_LOCK: _FACTORY,
    0xBF21: _ALWAYS,  # PrepareDownload answers for itself: DownloadErrorCode 4
    0xBF36: _FACTORY,  # LoadBoundProfilePackage
    0xBF41: _ALWAYS,  # CancelSession: without a reservation it finds no transaction
    0xBF28: _ALWAYS,  # ListNotification
    0xBF2B: _ALWAYS,  # RetrieveNotificationsList
    0xBF30: _ALWAYS,  # NotificationSent
    0xBF2D: _ALWAYS,  # GetProfilesInfo
    0xBF2E: _FIELD,  # GetEUICCChallenge
    0xBF38: _FIELD,  # AuthenticateServer
    0xBF31: _PROFILE_STATE,  # EnableProfile
    0xBF32: _DISABLE,  # DisableProfile
    0xBF33: _DELETE,  # DeleteProfile
    0xBF34: _FIELD,  # eUICCMemoryReset
    0xBF29: _FIELD,  # SetNickname
    0xBF3F: _FIELD,  # SetDefaultDpAddress
    0xBF35: _FIELD,  # LoadCRL
    **dict.fromkeys(range(0xBF51, 0xBF60), _FIELD),  # SGP.32, IoT eUICC packages
    0xBF65: _FIELD,  # SetDefaultDpAddress of SGP.32
}


def allowed(operation: int, stage: Stage, *, connectivity_test: bool, rework: bool = False) -> bool:
    """Say whether the gate of this operation is open at this stage."""
    gate = GATES.get(operation, _ALWAYS)[stage]
    return {
        Gate.OPEN: True,
        Gate.SHUT: False,
        Gate.IF_CONNECTIVITY_TEST: connectivity_test,
        Gate.IF_REWORK: rework,
        Gate.IF_EITHER: connectivity_test or rework,
    }[gate]

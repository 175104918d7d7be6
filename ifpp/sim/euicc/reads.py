"""ES10 functions that read the chip or tend its notification list (SGP.22 5.7; nothing here touches a profile)."""

from __future__ import annotations

from ifpp.sim.euicc.chip import NOT_FOUND, Chip, StatusWordError, members
from ifpp.sim.euicc.nvm import Notification, Profile
from ifpp.sim.tlv import Node, integer, parse_one, read_bits, read_integer, split_header, tlv

_ROOT_DS = b"lpa.ds.example"
_EID_TAG = bytes((0x5A,))
_NOTHING_TO_DELETE = 1
_INCORRECT_INPUT = 1
_OPERATIONAL = b"\x02"
_STATE = 0x9F70
_SEARCH = {0x4F, 0x5A, 0x95}
_DEFAULT_TAGS = (0x5A, 0x4F, _STATE, 0x90, 0x91, 0x92, 0x93, 0x94, 0x95)


def get_eid(chip: Chip, request: Node) -> bytes:
    """GetEuiccData: the EID is all there is."""
    if members(request.value).get(0x5C) != _EID_TAG:
        raise StatusWordError(NOT_FOUND)
    return tlv(0xBF3E, tlv(0x5A, chip.eid16))


def get_info1(chip: Chip, _request: Node) -> bytes:
    """EUICCInfo1: version and CI keys, cut out of EUICCInfo2."""
    info2 = parse_one(chip.info2())
    return tlv(0xBF20, *(info2.need(tag).raw for tag in (0x82, 0xA9, 0xAA)))


def get_info2(chip: Chip, _request: Node) -> bytes:
    return chip.info2()


def get_rat(chip: Chip, _request: Node) -> bytes:
    return tlv(0xBF43, tlv(0xA0, chip.nvm.rat))


def get_addresses(chip: Chip, _request: Node) -> bytes:
    default = chip.nvm.default_dp_address
    return tlv(0xBF3C, tlv(0x80, default.encode()) if default else b"", tlv(0x81, _ROOT_DS))


def get_profiles_info(chip: Chip, request: Node) -> bytes:
    """GetProfilesInfo with optional search criterion (A0) and tag list (5C)."""
    try:
        found = members(request.value)
        if not found.keys() <= {0xA0, 0x5C}:
            raise ValueError("members of GetProfilesInfo")
        tags = _tag_list(found[0x5C]) if 0x5C in found else _DEFAULT_TAGS
        profiles = _search(chip, found.get(0xA0))
    except ValueError:
        return tlv(0xBF2D, tlv(0x81, integer(_INCORRECT_INPUT)))
    return tlv(0xBF2D, tlv(0xA0, *(_profile_info(profile, tags) for profile in profiles)))


def list_notifications(chip: Chip, request: Node) -> bytes:
    """ListNotification, optionally of one kind of event."""
    found = members(request.value)
    chosen = _of_events(chip.nvm.notifications, found.get(0x81))
    return tlv(0xBF28, tlv(0xA0, *(kept.metadata for kept in chosen)))


def retrieve_notifications(chip: Chip, request: Node) -> bytes:
    """RetrieveNotificationsList, all or by sequence number or event; nothing found is an empty list."""
    found = members(request.value)
    criterion = members(found.get(0xA0, b""))
    chosen = _of_events(chip.nvm.notifications, criterion.get(0x81))
    if 0x80 in criterion:
        sequence = read_integer(criterion[0x80])
        chosen = [kept for kept in chosen if kept.sequence == sequence]
    return tlv(0xBF2B, tlv(0xA0, *(kept.raw for kept in chosen)))


def remove_notification(chip: Chip, request: Node) -> bytes:
    """NotificationSent: forget one notification."""
    sequence = read_integer(members(request.value)[0x80])
    kept = [each for each in chip.nvm.notifications if each.sequence != sequence]
    result = 0 if len(kept) < len(chip.nvm.notifications) else _NOTHING_TO_DELETE
    chip.nvm.notifications = kept
    return tlv(0xBF30, tlv(0x80, integer(result)))


def _of_events(notifications: list[Notification], events: bytes | None) -> list[Notification]:
    if events is None:
        return list(notifications)
    wanted = read_bits(events)
    return [kept for kept in notifications if kept.event in wanted]


def _tag_list(content: bytes) -> tuple[int, ...]:
    """Split concatenated tags: each is read as if a length 0 followed."""
    tags = []
    while content:
        size = 1 if content[0] & 0x1F != 0x1F else 2
        if size == 2 and len(content) > 1 and content[1] & 0x80:
            size = 3
        tag, _, _ = split_header(content[:size] + b"\x00")
        tags.append(tag)
        content = content[size:]
    return tuple(tags)


def _search(chip: Chip, criterion: bytes | None) -> list[Profile]:
    if criterion is None:
        return chip.nvm.profiles
    wanted = parse_one(criterion)
    if wanted.tag not in _SEARCH:
        raise ValueError("search criterion")
    return [profile for profile in chip.nvm.profiles if _details(profile)[wanted.tag] == wanted.value]


def _details(profile: Profile) -> dict[int, bytes]:
    """ProfileInfo members by tag in their order; those of the metadata as they were received."""
    metadata = members(parse_one(profile.metadata).value)
    own: dict[int, bytes] = {
        0x5A: profile.iccid,
        0x4F: profile.aid,
        _STATE: bytes((profile.enabled,)),
    }
    if profile.nickname:
        own[0x90] = profile.nickname.encode()
    for tag in (0x91, 0x92, 0x93, 0x94):
        if tag in metadata:
            own[tag] = metadata[tag]
    own[0x95] = metadata.get(0x95, _OPERATIONAL)
    for tag in (0xB6, 0xB7, 0x99, 0xBF22):
        if tag in metadata:
            own[tag] = metadata[tag]
    if profile.dp_proprietary:
        own[0xB8] = parse_one(profile.dp_proprietary).value
    return own


def _profile_info(profile: Profile, tags: tuple[int, ...]) -> bytes:
    return tlv(0xE3, *(tlv(tag, value) for tag, value in _details(profile).items() if tag in tags))

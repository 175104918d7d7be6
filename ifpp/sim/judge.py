"""The judge of a line that has ended: compares what every chip holds with what everybody says of it.

Four kinds of fault, each with its reason in words:

lost                a profile on a chip, a spent key or an event that the books do not know; a package spent for nothing
doubled             one package, key, profile, event or unit that counts twice
unresolved_wrongly  held although the chip tells what happened, or booked as the opposite of what the chip holds
stuck               what did not come to an end within its bound (whoever drove the line says that)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from ifpp.sim.witness import Evidence, Package, Sending, Unit

HOPELESS = frozenset({"small_memory", "no_package", "dead", "tampered"})
_OPEN = ("CLAIMED", "SENT", "UNKNOWN")
_SENT = ("SENT", "UNKNOWN")
_KEY_GONE = ("consumed", "deleted")


@dataclass(slots=True)
class Verdict:
    """What the judge found; empty lists are an acquittal."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    unresolved_wrongly: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.unresolved_wrongly)


def judge(evidence: Evidence) -> Verdict:
    """Judge one line."""
    lost, doubled, wrong = (
        [reason for rule in rules for reason in rule(evidence)] for rules in (RULES_LOST, RULES_DOUBLED, RULES_WRONG)
    )
    return Verdict(lost, doubled, wrong)


# ---- lost -----------------------------------------------------------------------------------------


def _profiles_not_booked(evidence: Evidence) -> Iterator[str]:
    """On the chip, and the books neither have it INSTALLED nor know that it is under way."""
    for unit, package in _pairs(evidence):
        if package.iccid in unit.profiles and package.state not in ("INSTALLED", *_SENT) and not package.spent:
            yield f"{_name(package)}: on the chip, the books say {package.state}"


def _keys_not_booked(evidence: Evidence) -> Iterator[str]:
    """Spent or deleted on the chip, and the books still count on it."""
    for unit, package in _pairs(evidence):
        if not unit.keys:
            continue  # activation codes need none
        gone = unit.keys.get(package.otk_id, "missing") not in ("available", "reserved")
        if gone and package.iccid not in unit.profiles and package.state not in _SENT and not package.spent:
            yield f"{_name(package)}: its key is {unit.keys.get(package.otk_id)}, the books say {package.state}"


def _keys_of_nobody(evidence: Evidence) -> Iterator[str]:
    booked = {(package.eid, package.otk_id) for package in evidence.packages}
    for unit in evidence.units:
        for otk_id, state in unit.keys.items():
            if state == "consumed" and (unit.eid, otk_id) not in booked:
                yield f"EID {unit.eid}: key {otk_id} is consumed, and no package has it"


def _profiles_of_nobody(evidence: Evidence) -> Iterator[str]:
    known = {package.iccid for package in evidence.packages}
    for unit in evidence.units:
        for iccid in unit.profiles:
            if iccid not in known:
                yield f"EID {unit.eid}: profile {iccid} is in no book"


def _spent_for_nothing(evidence: Evidence) -> Iterator[str]:
    """A sound package and a sound chip, and still the key went without a profile: a paid profile is gone."""
    for unit, package in _pairs(evidence):
        sound = unit.fault not in HOPELESS and package.iccid not in unit.profiles
        spent = unit.keys.get(package.otk_id) == "consumed" if unit.keys else package.spent
        if sound and spent:
            yield f"{_name(package)}: spent, and no profile came of it; the books say {package.state}"


def _events_not_taken(evidence: Evidence) -> Iterator[str]:
    known = {(event.node, event.seq) for event in [*evidence.taken, *evidence.parked]}
    for event in evidence.stored:
        if (event.node, event.seq) not in known:
            yield f"event {event.seq} of {event.node} is in its journal and not in the books"


def _events_not_stored(evidence: Evidence) -> Iterator[str]:
    known = {(event.node, event.seq) for event in evidence.stored}
    for event in evidence.taken:
        if (event.node, event.seq) not in known:
            yield f"event {event.seq} of {event.node} is in the books and no longer in its journal"


def _events_put_aside(evidence: Evidence) -> Iterator[str]:
    for event, why in evidence.parked.items():
        yield f"event {event.seq} of {event.node} was put aside: {why}"


def _passes_not_booked(evidence: Evidence) -> Iterator[str]:
    """Green means stored."""
    passed = {attempt.eid for attempt in evidence.attempts if attempt.result == "PASS"}
    for unit in evidence.units:
        if unit.lamp == "pass" and unit.eid not in passed:
            yield f"EID {unit.eid}: the lamp was green, and no PASS is in the books"
        if unit.lamp == "pass" and unit.eid not in evidence.cleared:
            yield f"EID {unit.eid}: the lamp was green, and the books do not call it clean to ship"
        if unit.lamp == "pass" and evidence.gates[unit.eid]:
            yield f"EID {unit.eid}: the lamp was green, and the gate is shut: {evidence.gates[unit.eid]}"


def _not_reported(evidence: Evidence) -> Iterator[str]:
    """What is installed must be proven to the SM-DPf; what it refuses is worth nothing to it."""
    proven = set(evidence.proven)
    for package in evidence.packages:
        if package.state == "INSTALLED" and package.iccid not in proven:
            yield f"{_name(package)}: INSTALLED, and not proven in a Profile Loading Report"
    for why in evidence.refused:
        yield f"the SM-DPf refuses a report line: {why}"


def _books_broken(evidence: Evidence) -> Iterator[str]:
    for fault in evidence.broken:
        yield f"the books: {fault}"


def _units_not_counted(evidence: Evidence) -> Iterator[str]:
    units = {attempt.eid for attempt in evidence.attempts if attempt.eid and attempt.result != "SKIPPED"}
    if evidence.counted[0] < len(units):
        yield f"{len(units)} units in the books, {evidence.counted[0]} in the figures"


# ---- doubled --------------------------------------------------------------------------------------


def _profiles_twice(evidence: Evidence) -> Iterator[str]:
    places = [(iccid, unit.eid) for unit in evidence.units for iccid in unit.profiles]
    for iccid, number in Counter(iccid for iccid, _ in places).items():
        if number > 1:
            yield f"profile {iccid} stands {number} times: on EID " + ", ".join(e for i, e in places if i == iccid)
    owner = {package.iccid: package.eid for package in evidence.packages}
    for iccid, eid in places:
        if owner.get(iccid, eid) != eid:
            yield f"profile {iccid} of EID {owner[iccid]} is on EID {eid}"


def _packages_twice(evidence: Evidence) -> Iterator[str]:
    for package in evidence.packages:
        ends = sum(step == "INSTALLED" for step in package.steps)
        if ends > 1:
            yield f"{_name(package)}: INSTALLED {ends} times in the ledger"
    keys = Counter((package.eid, package.otk_id) for package in evidence.packages)
    for (eid, otk_id), number in keys.items():
        if number > 1:
            yield f"EID {eid}: key {otk_id} stands for {number} packages"


def _events_twice(evidence: Evidence) -> Iterator[str]:
    for name, events in (("the books", [*evidence.taken, *evidence.parked]), ("the journals", evidence.stored)):
        for event_id, number in Counter(event.id for event in events).items():
            if number > 1:
                yield f"event {event_id} stands {number} times in {name}"
    own = {(event.node, event.seq): event.id for event in evidence.stored}
    for event in evidence.taken:
        if own.get((event.node, event.seq), event.id) != event.id:
            yield f"number {event.seq} of {event.node} stands for two events"


def _attempts_twice(evidence: Evidence) -> Iterator[str]:
    for attempt, number in Counter(attempt.transaction_id for attempt in evidence.attempts).items():
        if number > 1:
            yield f"attempt {attempt} was reported {number} times"


def _units_twice(evidence: Evidence) -> Iterator[str]:
    attempts = [attempt for attempt in evidence.attempts if attempt.eid and attempt.result != "SKIPPED"]
    units, passed = ({a.eid for a in attempts}, {a.eid for a in attempts if a.result == "PASS"})
    for name, number, counted in (
        ("units", len(units), evidence.counted[0]),
        ("passed", len(passed), evidence.counted[1]),
    ):
        if counted > number:
            yield f"{number} {name} in the books, {counted} in the figures"


def _proven_twice(evidence: Evidence) -> Iterator[str]:
    for iccid, number in Counter(evidence.proven).items():
        if number > 1:
            yield f"profile {iccid} was reported as installed {number} times"


# ---- unresolved wrongly ---------------------------------------------------------------------------


def _left_open(evidence: Evidence) -> Iterator[str]:
    """Every chip can be read: nothing may be left open but what no chip and no journal can tell."""
    kept = {sending.iccid for sending in evidence.sendings if sending.has_result}
    for unit, package in _pairs(evidence):
        if package.state in _SENT and (unit.has_results or package.iccid in kept or _usable(unit, package)):
            truth = "holds it" if package.iccid in unit.profiles else f"has its key {unit.keys.get(package.otk_id)}"
            yield f"{_name(package)}: left {package.state}, the chip {truth} and can tell"
        if package.state == "CLAIMED" and package.lease_until <= evidence.at:
            yield f"{_name(package)}: CLAIMED for nobody since {package.lease_until}"


def _opposite(evidence: Evidence) -> Iterator[str]:
    for unit, package in _pairs(evidence):
        on_chip = package.iccid in unit.profiles
        if package.state == "INSTALLED" and not on_chip:
            yield f"{_name(package)}: the books say INSTALLED, the chip does not have it"
        if package.state in ("FAILED", "DESTROYED") and package.spent and on_chip:
            yield f"{_name(package)}: the books say {package.state}, it is on the chip"
        if package.spent and _usable(unit, package):
            yield f"{_name(package)}: the books say spent, its key is {unit.keys[package.otk_id]}"


def _journal_opposite(evidence: Evidence) -> Iterator[str]:
    """The newest word of a station's own journal about each package."""
    units = {unit.eid: unit for unit in evidence.units}
    for sending in _newest(evidence.sendings):
        unit = units.get(sending.eid)
        if unit is None:
            yield f"{sending.node}: a package for EID {sending.eid}, and there is no such unit"
            continue
        on_chip = sending.iccid in unit.profiles
        if (sending.state == "INSTALLED") != on_chip and sending.state not in _SENT:
            yield f"{sending.node}: ICCID {sending.iccid} is {sending.state} in the journal, the chip says otherwise"
        if sending.state in _SENT and not sending.resolved and (unit.lamp == "pass" or unit.has_results):
            yield f"{sending.node}: ICCID {sending.iccid} is left {sending.state} in the journal, the chip can tell"


def _green_lies(evidence: Evidence) -> Iterator[str]:
    booked: dict[str, list[str]] = {}
    without = {unit.eid for unit in evidence.units if not unit.keys}
    for package in evidence.packages:
        if package.eid not in without or package.state == "INSTALLED":  # a code that failed may be another chip's now
            booked.setdefault(package.eid, []).append(package.iccid)
    for unit in evidence.units:
        sealed = unit.locked and not any(state in ("available", "reserved") for state in unit.keys.values())
        sealed = sealed or unit.eid in without
        whole = unit.eid in booked and all(iccid in unit.profiles for iccid in booked[unit.eid])
        if unit.lamp == "pass" and not (sealed and whole):
            yield f"EID {unit.eid}: the lamp was green, the chip is {'sealed' if sealed else 'open'} and " + (
                "has its profiles" if whole else "lacks a profile"
            )
        if unit.eid in evidence.cleared and not (sealed and whole):
            yield f"EID {unit.eid}: clean to ship in the books, not on the chip"
        if not evidence.gates[unit.eid] and not (sealed and whole):
            yield f"EID {unit.eid}: the gate lets it go, the chip is not clean to ship"


def _held_without_need(evidence: Evidence) -> Iterator[str]:
    for unit in evidence.units:
        if unit.fault not in HOPELESS and unit.bin and unit.bin != "pass":
            yield f"EID {unit.eid}: a sound unit ended in the bin {unit.bin}; {_states(evidence, unit)}"
        if unit.lamp == "pass" and unit.eid in evidence.held:
            yield f"EID {unit.eid}: passed, and its station still holds it: {evidence.held[unit.eid]}"


RULES_LOST: tuple[Callable[[Evidence], Iterable[str]], ...] = (
    _profiles_not_booked,
    _keys_not_booked,
    _keys_of_nobody,
    _profiles_of_nobody,
    _spent_for_nothing,
    _events_not_taken,
    _events_not_stored,
    _events_put_aside,
    _passes_not_booked,
    _not_reported,
    _books_broken,
    _units_not_counted,
)
RULES_DOUBLED: tuple[Callable[[Evidence], Iterable[str]], ...] = (
    _profiles_twice,
    _packages_twice,
    _events_twice,
    _attempts_twice,
    _units_twice,
    _proven_twice,
)
RULES_WRONG: tuple[Callable[[Evidence], Iterable[str]], ...] = (
    _left_open,
    _opposite,
    _journal_opposite,
    _green_lies,
    _held_without_need,
)


# ---- helpers --------------------------------------------------------------------------------------


def _pairs(evidence: Evidence) -> Iterator[tuple[Unit, Package]]:
    """Every package with the chip it is bound to."""
    units = {unit.eid: unit for unit in evidence.units}
    for package in evidence.packages:
        if package.eid in units:
            yield units[package.eid], package


def _newest(sendings: Iterable[Sending]) -> Iterable[Sending]:
    """The last word of each station about each package."""
    return {(sending.node, sending.iccid): sending for sending in sendings}.values()


def _usable(unit: Unit, package: Package) -> bool:
    return unit.keys.get(package.otk_id) in ("available", "reserved")


def _states(evidence: Evidence, unit: Unit) -> str:
    states = [f"{package.iccid} {package.state}" for package in evidence.packages if package.eid == unit.eid]
    return f"packages {', '.join(states) or 'none'}; held: {evidence.held.get(unit.eid, 'no')}"


def _name(package: Package) -> str:
    return f"package {package.package_id} (EID {package.eid}, ICCID {package.iccid})"

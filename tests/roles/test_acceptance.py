"""Acceptance: what the copy of a plant's line keeps and replaces, criteria that fail, reports nobody can change."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ifpp.errors import CustodyError, IfppError, ServiceError, SettingsError
from ifpp.line import acceptance as report
from ifpp.line.signed_file import verify_file
from ifpp.roles.acceptance import AcceptanceOptions, accept
from ifpp.roles.acceptance_copy import _SITE, _STATION, Plant, digest, toml
from ifpp.roles.acceptance_judge import Criterion, Gathered, criteria
from ifpp.roles.acceptance_line import Act, Done, Journey
from ifpp.roles.report_verify import verify
from ifpp.settings import Site, Station, load_site, load_station
from ifpp.sim.witness import Unit
from ifpp.sim.world import UnitPlan, WorldSummary
from ifpp.store.factory import Factory
from ifpp.store.records import BalanceRow
from ifpp.trust.signer import SoftwareSigner, create_key, read_public_key
from tests.sim.test_judge import sound

ROOT = Path(__file__).parent.parent.parent

# ---- the copy ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "table",
    [
        {"a": 'quotes " and \\ and \t tabs', "b": 1, "c": -2.5, "d": True, "e": ["x", 1.5], "f": {}},
        {"t": {"2.999.10": {"url": "u"}, "plain": {"deep": {"er": 1}}}, "first": "kept above"},
        {"shifts": [{"name": "früh", "breaks": [["10:00", "10:15"]]}, {"name": "b", "x": {"y": 1}}]},
    ],
)
def test_what_is_written_as_toml_reads_back(table: dict[str, Any]) -> None:
    assert tomllib.loads(toml(table)) == table


PLANT_SITE = """enterprise = "acme"
site = "PLANT"
area = "hall"
line = "L9"
recipes = "PLANT/recipes"
[broker]
host = "broker.PLANT"
port = 8883
prefix = "other1"
tls = { ca = "PLANT/ca", cert = "PLANT/cert", key = "PLANT/key" }
[store]
url = "https://store.PLANT:8470"
host = "10.0.0.5"
port = 8470
database = "postgresql://ifpp@db.PLANT/factory"
metrics_port = 9470
metrics_host = "10.0.0.5"
low_stock_hours = 3.5
[store.tls]
ca = "PLANT/ca"
cert = "PLANT/cert"
key = "PLANT/key"
[supervisor]
metrics_port = 9471
lease_s = 7.0
checkpoint_entries = 50
[trust]
roots = "PLANT/trust"
[courier]
name = "PLANT"
key = "PLANT/courier.key"
[reports]
due_h = 12.0
[reports.smdp."2.999.77"]
url = "https://smdpf.PLANT/reports"
[keys]
provider = "software"
file = "PLANT/keys.ifpp"
[quota]
required = true
keys = { planner = "PLANT/planner.pub" }
[gate]
first_articles = 3
[mes]
enabled = true
[calendar]
zone = "Europe/Vienna"
shifts = [{ name = "early", start = "06:00", end = "14:00", breaks = [["10:00", "10:15"]] }]
"""
PLANT_STATION = """id = "st07"
journal = "PLANT/st07.db"
metrics_port = 9507
[heads.left]
port = "pcsc:PLANT reader"
lamp = "tcp://10.0.0.9:9999"
block_size = 200
socket_id = "S-1"
[heads.right]
port = "modem:/dev/PLANT?model=x"
[pcsc]
socket = "/run/PLANT"
[deadlines]
apdu_s = 3.5
[outbox]
resend_s = 1.5
[life]
contact_streak = 4
window = 50
[recipe]
memory_factor = 1.5
finish = "stock"
[cache]
file = "PLANT/cache.db"
eids = "PLANT/eids"
units = 20
[tls]
ca = "PLANT/ca"
cert = "PLANT/cert"
key = "PLANT/key"
[window]
socket = "PLANT.sock"
people = "PLANT/people.toml"
"""


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    for folder, name, text in (("config", "site.toml", PLANT_SITE), ("stations", "st07.toml", PLANT_STATION)):
        (tmp_path / "plant" / folder).mkdir(parents=True)
        (tmp_path / "plant" / folder / name).write_text(text, encoding="utf-8")
    shutil.copytree(ROOT / "config" / "recipes", tmp_path / "plant" / "config" / "PLANT" / "recipes")
    return Plant.read(tmp_path / "plant" / "config" / "site.toml", [])


def test_a_copy_keeps_the_plants_settings_and_none_of_its_places(plant: Plant, tmp_path: Path) -> None:
    own = {"broker.port": 1, "store.url": "http://127.0.0.1:2", "store.port": 2, "store.database": "sqlite:///own.db"}
    (tmp_path / "site.toml").write_text(toml(plant.site_copy({**own, "trust": {"roots": "own"}})), encoding="utf-8")
    heads = {name: {"port": f"tcp://127.0.0.1:{n}", "lamp": ""} for n, name in enumerate(("left", "right"), 1)}
    table = plant.station_copy("st07", {"journal": "own.db", "life.contact_streak": 0}, heads)
    (tmp_path / "st07.toml").write_text(toml(table), encoding="utf-8")
    site, station = load_site(tmp_path / "site.toml"), load_station(tmp_path / "st07.toml")
    assert (site.line, site.broker.prefix, site.supervisor.lease_s, site.store.low_stock_hours) == (
        "L9",
        "other1",
        7,
        3.5,
    )
    assert site.supervisor.checkpoint_entries == 50
    assert site.calendar == plant.site.calendar
    assert (site.broker.tls, site.store.tls, site.mes.enabled, site.gate.first_articles) == (None, None, False, 0)
    assert (station.deadlines.apdu_s, station.outbox.resend_s, station.life.window) == (3.5, 1.5, 50)
    assert (station.heads["left"].block_size, station.heads["left"].socket_id) == (200, "S-1")
    assert (station.cache.units, station.recipe.memory_factor, station.recipe.finish) == (20, 1.5, "seal")
    site_text = (tmp_path / "site.toml").read_text().replace('site = "PLANT"', "")
    assert "PLANT" not in site_text + (tmp_path / "st07.toml").read_text()


def test_what_is_replaced_is_told_with_what_the_plant_has(plant: Plant) -> None:
    told = {(one.file, one.key): one.plant for one in plant.replaced()}
    assert told["site", "store.database"] == '"postgresql://ifpp@db.PLANT/factory"'
    assert told["st07", "heads.left.port"] == '"pcsc:PLANT reader"'
    assert told["st07", "recipe.finish"] == '"stock"'
    assert ("site", "supervisor.lease_s") not in told
    # every mention of one of the plant's places is among them
    names = len(re.findall("PLANT", "".join(told.values())))
    assert names == len(re.findall("PLANT", PLANT_SITE.replace('site = "PLANT"', "") + PLANT_STATION))


_PLACE = re.compile(
    r"(^|_)(host|port|url|file|folder|socket|journal|database|ca|cert|crl|key|module|records|roots|eids)$"
)


@pytest.mark.parametrize(("kind", "replaced"), [(Site, _SITE), (Station, _STATION)])
def test_every_setting_that_names_a_place_is_replaced(kind: type, replaced: dict[str, str]) -> None:
    """Whoever adds a setting that names a file, a host or a port has to say here that the copy has its own."""
    left = [key for key in _keys(kind) if _PLACE.search(key.rpartition(".")[2]) and not _covered(key, replaced)]
    assert [key for key in left if not key.startswith("heads.")] == []


def _covered(key: str, replaced: dict[str, str]) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in replaced)


def _keys(kind: type, place: str = "") -> Iterator[str]:
    for field in msgspec.structs.fields(kind):
        nested = [field.type, *getattr(field.type, "__args__", ())]
        tables = [one for one in nested if isinstance(one, type) and issubclass(one, msgspec.Struct)]
        name = f"{place}{field.encode_name}"
        yield from (key for table in tables for key in _keys(table, f"{name}."))
        if not tables:
            yield name


def test_a_recipe_that_ends_clean_to_ship_is_chosen_by_name(plant: Plant, tmp_path: Path) -> None:
    chosen = plant.recipe("ifpp-enable")
    assert chosen is not None
    assert chosen.name == "ifpp-enable"
    for name in ("", "ifpp-stock", "absent"):
        with pytest.raises(SettingsError, match=r"name one that loads and ends clean to ship: .*ifpp-enable"):
            plant.recipe(name)
    plant.give_recipes(tmp_path / "given")
    assert digest(tmp_path / "given" / "ifpp-enable.toml") in plant.digests.values()
    assert (tmp_path / "given" / "eim.pem").is_file()


def test_without_recipes_units_are_loaded_verified_and_sealed(site: Path) -> None:
    plain = Plant.read(site, [])
    assert plain.recipe("") is None
    with pytest.raises(SettingsError, match="the plant has none"):
        plain.recipe("ifpp-load")


def test_own_ports_are_never_the_plants(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    offered = iter([8883, 8470, 9470, 9471, 9507, 9999, 40_000])
    monkeypatch.setattr("ifpp.roles.acceptance_copy.free_port", lambda: next(offered))
    assert plant.own_port() == 40_000


def test_a_plant_that_was_changed_meanwhile_is_seen(plant: Plant) -> None:
    assert plant.untouched
    plant.site_file.write_text(PLANT_SITE.replace("3.5", "3.6"), encoding="utf-8")
    assert not plant.untouched


# ---- refused before anything starts -----------------------------------------------------------------------


def refused(site: Path, options: AcceptanceOptions, *stations: Path) -> str:
    with pytest.raises(SettingsError) as fault:
        accept(site, list(stations), options)
    return str(fault.value)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The sample settings, which have no keys."""
    for name in ("config", "stations"):
        shutil.copytree(ROOT / name, tmp_path / "sample" / name)
    return tmp_path / "sample" / "config" / "site.toml"


def test_without_a_signer_nothing_starts(site: Path, tmp_path: Path) -> None:
    assert "nothing would sign" in refused(site, AcceptanceOptions(tmp_path / "out"))
    assert "SIGNER.KEY" in refused(site, AcceptanceOptions(tmp_path / "out", key=tmp_path / "absent"))


def test_what_exists_is_not_overwritten_and_what_cannot_be_made_is_named(site: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    assert "--out" in refused(site, AcceptanceOptions(tmp_path, key=key))
    assert "--keep" in refused(site, AcceptanceOptions(tmp_path / "out", key=key, keep=tmp_path))
    assert "folder does not exist" in refused(site, AcceptanceOptions(tmp_path / "no" / "out", key=key))


def test_the_plants_database_and_one_that_is_in_use_are_refused(site: Path, tmp_path: Path) -> None:
    own = f"sqlite:///{site.parent / 'factory.db'}"
    assert "plant's own" in refused(site, AcceptanceOptions(tmp_path / "out", database=own))
    used = f"sqlite:///{tmp_path / 'used.db'}"
    Factory.open(used).close()
    assert "not empty" in refused(site, AcceptanceOptions(tmp_path / "out", database=used))


def test_stations_are_found_named_and_different(site: Path, tmp_path: Path) -> None:
    station = next((site.parent.parent / "stations").glob("*.toml"))
    options = AcceptanceOptions(tmp_path / "out")
    assert "of one station" in refused(site, options, station, Path(shutil.copy(station, tmp_path / "other.toml")))
    station.rename(tmp_path / "st01.toml")
    assert "name the station files" in refused(site, options)


def test_too_few_units_for_every_act_are_refused(site: Path, tmp_path: Path) -> None:
    create_key(tmp_path / "key")
    assert "--units" in refused(site, AcceptanceOptions(tmp_path / "out", key=tmp_path / "key", units=5))
    assert not (tmp_path / "out").exists()


# ---- criteria ---------------------------------------------------------------------------------------------


def gathered() -> Gathered:
    """Two units that passed, one of them pulled at first, and a chip without memory."""
    balance = BalanceRow("S", "EU", "2.999.10", 3, 0, 0, 0, 2, 1, 0, 0)
    assert balance.holds
    return Gathered(sound(), [balance], audit_entries=9, answered=[True])


WORLD = WorldSummary(
    Path(), Path(), Path(), (), (), Path(),
    tuple(
        UnitPlan(f"e{number}", f"sn{number}", "JO", "st01", fault)
        for number, fault in ((1, ""), (2, "contact"), (3, "small_memory"))
    ),
)  # fmt: skip


def whole() -> Journey:
    return Journey([Done(act, "x", 3, 2.0) for act in Act], elapsed_s=10.0)


def judged(told: Gathered, journey: Journey | None = None, *, untouched: bool = True) -> dict[str, Criterion]:
    found = criteria(told, WORLD, journey or whole(), lease_s=15.0, untouched=untouched)
    return {one.name: one for one in found}


def test_a_sound_line_meets_every_criterion() -> None:
    found = judged(gathered())
    assert [one.name for one in found.values() if not one.passed] == []
    assert (found["units.passed"].limit, found["units.passed"].measured) == ("2 of 2", "2 of 2")
    assert len([name for name in found if name.startswith("act.")]) == len(Act)


def failing(found: dict[str, Criterion]) -> set[str]:
    return {one.name for one in found.values() if not one.passed}


def test_what_is_wrong_fails_its_criterion_with_its_reason() -> None:
    told = gathered()
    told.evidence.units[0].lamp = told.evidence.units[0].bin = "fail"
    told.defects = {"e1": "EUICC.TOO_OLD"}
    found = judged(told)
    assert "units.passed" in failing(found)
    assert found["units.passed"].reasons == ["EID e1: EUICC.TOO_OLD"]

    told = gathered()
    told.evidence.units[2].lamp = "pass"
    assert {"units.refused", "units.clear", "custody.wrong"} <= failing(judged(told))

    told = gathered()
    told.evidence.taken.pop()
    assert failing(judged(told)) == {"custody.lost"}

    told = gathered()
    told.balance = [replace(told.balance[0], installed=1)]
    assert failing(judged(told)) == {"custody.balance"}
    told.balance = [replace(told.balance[0], installed=1, unknown=1)]
    assert failing(judged(told)) == {"custody.balance"}

    told = gathered()
    told.audit_findings = ["entry 3 was changed"]
    assert failing(judged(told)) == {"audit"}

    told = gathered()
    told.untrue = ["EID e1: ICCID i1 is disabled, and the station said it was as promised"]
    assert failing(judged(told)) == {"recipe"}


@pytest.mark.parametrize("answered", [[], [False], [True, False]])
def test_reports_that_nobody_acknowledged_fail(answered: list[bool]) -> None:
    told = gathered()
    told.answered = answered
    assert failing(judged(told)) == {"reports"}


def test_a_unit_that_was_never_binned_is_not_decided() -> None:
    told = gathered()
    told.evidence.units.append(Unit("e4", [], {}, locked=False, bin="", lamp=""))
    told.evidence.gates["e4"] = "none"
    world = replace(WORLD, units=(*WORLD.units, UnitPlan("e4", "sn4", "JO", "st01", "")))
    found = criteria(told, world, whole(), lease_s=15.0, untouched=True)
    assert {"units.decided", "units.passed"} <= {one.name for one in found if not one.passed}


@pytest.mark.parametrize(
    ("act", "done"),
    [
        (Act.STORE_KILLED, Done(Act.STORE_KILLED, "store", 0, 1.0)),
        (Act.STORE_KILLED, Done(Act.STORE_KILLED, "store", 2, 60.1)),
        (Act.STORE_KILLED, Done(Act.STORE_KILLED, "store", 2, 1.0, "it did not serve")),
        (Act.SUPERVISOR_KILLED, Done(Act.SUPERVISOR_KILLED, "supervisor", 2, 75.1)),
        (Act.BROKER_AWAY, None),
    ],
)
def test_an_act_without_units_too_slow_or_missing_fails(act: Act, done: Done | None) -> None:
    journey = Journey([one for one in whole().done if one.act is not act] + ([done] if done else []))
    assert failing(judged(gathered(), journey)) == {f"act.{act.name.lower()}"}


def test_a_line_that_stalled_and_a_plant_that_changed_fail() -> None:
    journey = whole()
    journey.faults = ["no unit was finished for 120 s"]
    found = judged(gathered(), journey, untouched=False)
    assert failing(found) == {"end", "apart"}
    assert found["end"].reasons == journey.faults


# ---- the report -------------------------------------------------------------------------------------------


def document(verdict: str = "pass", **changes: Any) -> dict[str, Any]:
    return {
        "format": report.FORMAT,
        "report_id": "01a2-3",
        "made_at": "2026-03-02T06:00:00.000Z",
        "verdict": verdict,
        "line": {"enterprise": "a", "site": "b", "area": "c", "line": "L1", "stations": {"st01": ["h01"]}},
        "plan": {"units": 3},
        "criteria": [
            {"name": "x", "title": "T", "limit": "1", "measured": "<b>0</b>", "passed": False, "reasons": ["EID <i>"]}
        ],
        "acts": [],
        "figures": {},
        "versions": {"ifpp": "0.1"},
        "machine": {"cpus": 2},
        "configuration": {
            "files": {"site.toml": "ab"},
            "replaced": [{"file": "site", "key": "k", "plant": '"<s>"', "why": "w"}],
        },
        "notes": ["<script>alert(1)</script>"],
    } | changes


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    """A report in `out`, signed by `key`."""
    create_key(tmp_path / "key")
    report.write(document(), tmp_path / "out", SoftwareSigner.load(tmp_path / "key"))
    return tmp_path / "out"


def test_both_forms_are_signed_and_verify(signed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(path.name for path in signed.iterdir()) == [
        "acceptance.html", "acceptance.html.sig", "acceptance.json", "acceptance.json.sig",
    ]  # fmt: skip
    for name in (report.JSON_NAME, report.HTML_NAME):
        assert verify(signed / name, [signed.parent / "key.pub"]) == 0
    assert "its verdict: pass" in capsys.readouterr().out
    assert json.loads((signed / report.JSON_NAME).read_bytes()) == document()


def test_a_report_that_says_fail_holds_and_is_no_pass(tmp_path: Path) -> None:
    create_key(tmp_path / "key")
    report.write(document("fail"), tmp_path / "out", SoftwareSigner.load(tmp_path / "key"))
    assert verify(tmp_path / "out" / report.JSON_NAME, [tmp_path / "key.pub"]) == 1


def code_of(path: Path, key: Path) -> str:
    known = read_public_key(key)
    with pytest.raises(IfppError) as fault:
        verify_file(path, {known.key_id: known})
    return fault.value.code


@pytest.mark.parametrize("name", [report.JSON_NAME, report.HTML_NAME])
def test_one_changed_byte_is_found(signed: Path, name: str) -> None:
    content = (signed / name).read_bytes()
    (signed / name).write_bytes(content.replace(b"L1", b"L2"))
    assert code_of(signed / name, signed.parent / "key.pub") == "REPORT.CHANGED"


def test_a_signature_that_was_changed_moved_or_made_by_another_is_found(signed: Path) -> None:
    path, key = signed / report.JSON_NAME, signed.parent / "key.pub"
    beside = path.with_name(path.name + ".sig")
    told = json.loads(beside.read_text())
    create_key(signed.parent / "other")
    assert code_of(path, signed.parent / "other.pub") == "AUDIT.UNKNOWN_KEY"
    for changes, code in (
        ({"report_id": "01a2-4"}, "AUDIT.SIGNATURE"),
        ({"of": "ifpp.plr"}, "AUDIT.SIGNATURE"),
        ({"signature": b64encode(bytes(64)).decode()}, "AUDIT.SIGNATURE"),
        ({"of": "other"}, "REPORT.UNSIGNED"),
        ({"signature": "no base64"}, "REPORT.UNSIGNED"),
        ({"version": "2.0"}, "REPORT.UNSIGNED"),
    ):
        beside.write_text(json.dumps(told | changes))
        assert code_of(path, key) == code, changes
    shutil.copy(signed / "acceptance.html.sig", beside)
    assert code_of(path, key) == "REPORT.CHANGED"
    for content in ("[]", "{", '"text"', ""):
        beside.write_text(content)
        assert code_of(path, key) == "REPORT.UNSIGNED"
    beside.unlink()
    assert code_of(path, key) == "REPORT.UNSIGNED"


def test_the_page_escapes_names_and_runs_nothing() -> None:
    page = report.as_html(document())
    assert "NOT ACCEPTED" not in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "<b>0</b>" not in page
    assert "&lt;i&gt;" in page
    assert "default-src 'none'" in page
    assert "NOT ACCEPTED" in report.as_html(document("fail"))


def test_the_text_says_what_failed_and_why() -> None:
    text = report.as_text(document("fail"))
    assert "a/b/c/L1: FAIL, 0 of 1 criteria" in text
    assert "FAIL  x" in text
    assert "EID <i>" in text


class Broken:
    """A signer whose device fails at its second signature."""

    key_id, public = "k", b""
    signed = 0

    def sign(self, message: bytes) -> bytes:
        self.signed += 1
        if self.signed == 2:
            raise ServiceError("SIGNER.FAILED", "gone")
        return bytes(64)


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(ServiceError):
        report.write(document(), tmp_path / "out", Broken())
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    create_key(tmp_path / "key")
    with pytest.raises(CustodyError, match="exists"):
        report.write(document(), tmp_path / "out", SoftwareSigner.load(tmp_path / "key"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "key.pub", "out"]


def test_a_report_is_verified_against_a_key_that_is_named(signed: Path) -> None:
    with pytest.raises(SettingsError, match="--key"):
        verify(signed / report.JSON_NAME, [])

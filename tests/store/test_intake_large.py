"""Large files: claims go on meanwhile, all of a file is there at once, and a kill leaves nothing half done."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Event, Thread

import pytest

from ifpp.errors import IfppError, IntakeError, ServiceError, SupplyError
from ifpp.store import intake as module
from ifpp.store.factory import Factory
from tests.clock import START
from tests.store.importer import DIGEST
from tests.store.raw import raw
from tests.store.world import chip_item, import_chips, job, package_item, request, states, stock

LARGE, CLAIMED = {"sqlite": 8_000, "postgresql": 5_000}, 50


@contextmanager
def importer(url: str, first: int, count: int, size: int = 400) -> Iterator[subprocess.Popen[str]]:
    """A process that imports one package for each of so many chips."""
    command = [sys.executable, "-m", "tests.store.importer", url, *map(str, (first, count, size))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def wait_for(process: subprocess.Popen[str], phase: str, items: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        said, number = line.split()
        if said == phase and int(number) >= items:
            return
    pytest.fail(f"it ended before it had said {phase} {items}")


def left_over(url: str) -> tuple[int, int, int]:
    """Rows that are staged, packages, and contents of packages."""
    with raw(url) as connection:
        counts = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("staged", "package", "package_bytes")
        ]
    return counts[0], counts[1], counts[2]


def test_claims_hardly_wait_for_a_large_import(factory: Factory, url: str) -> None:
    large = LARGE[url.partition(":")[0]]
    stock(factory, CLAIMED)
    import_chips(factory, (chip_item(number, keys=1) for number in range(CLAIMED + 1, CLAIMED + large + 1)))
    claims = 0
    with importer(url, CLAIMED + 1, large) as process:
        talk = Thread(target=process.communicate)
        talk.start()
        while process.poll() is None:
            claim = factory.claim(request(claims % CLAIMED + 1, head_id=f"h{claims}"), START)
            claims += 1
            factory.release(claim.attempt_id, "st01", START)
            time.sleep(0.02)
        talk.join()
        assert process.returncode == 0
    assert claims > 20, "claims go on while the file comes in"
    (row,) = factory.balance()
    assert (row.available, row.holds) == (CLAIMED + large, True)


def test_a_file_is_on_the_shelf_at_once(factory: Factory) -> None:
    """Its rows come chunk after chunk; claims, balance and audit know nothing of them before the last one."""
    stock(factory, 1)
    import_chips(factory, (chip_item(number) for number in range(2, 452)))
    seen = []

    def look(items: int) -> None:
        seen.append(items)
        for number in (2, 451):
            with pytest.raises(SupplyError, match=r"BPP\.NOT_FOUND"):
                factory.claim(request(number), START)
        (row,) = factory.balance()
        assert (row.imported, row.available, row.holds) == (1, 1, True)
        assert factory.audit() == []

    with factory.intake("esbpp", "large", "digest", START, shelved=look) as intake:
        for number in range(2, 452):
            intake.add_package(package_item(number))
    assert seen == [200, 400, 450]
    assert len(factory.claim(request(451), START).packages) == 1
    assert factory.balance()[0].imported == 451


def test_a_kill_while_a_file_is_staged_leaves_nothing(factory: Factory, url: str) -> None:
    import_chips(factory, (chip_item(number, keys=1) for number in range(1, 2001)))
    with importer(url, 1, 2000) as process:
        wait_for(process, "staging", 1000)
        process.kill()
        process.wait()
    staged, packages, content = left_over(url)
    assert staged == content >= 900
    assert packages == 0
    assert factory.balance() == []
    factory.settle_intakes(START)
    assert left_over(url) == (0, 0, 0)
    with importer(url, 1, 2000) as process:
        wait_for(process, "done", 2000)
    assert factory.balance()[0].available == 2000
    assert factory.audit() == []


def test_what_another_left_staged_is_thrown_away_by_the_next_import(factory: Factory, url: str) -> None:
    import_chips(factory, (chip_item(number, keys=1) for number in range(1, 1001)))
    with importer(url, 1, 1000) as process:
        wait_for(process, "staging", 500)
        process.kill()
        process.wait()
    with factory.intake("esbpp", "another", "digest", START) as intake:
        intake.add_package(package_item(1))
    assert left_over(url) == (0, 1, 1)
    assert states(factory, 1) == ["AVAILABLE"]


def test_a_kill_after_a_file_was_accepted_is_made_good(factory: Factory, url: str) -> None:
    import_chips(factory, (chip_item(number, keys=1) for number in range(1, 2001)))
    with importer(url, 1, 2000) as process:
        wait_for(process, "shelving", 600)
        process.kill()
        process.wait()
    staged, _, content = left_over(url)
    assert staged > 1
    assert content == 2000
    with pytest.raises(SupplyError, match=r"BPP\.NOT_FOUND"):
        factory.claim(request(1), START)
    assert factory.balance() == []
    assert factory.batches()[1:] == []
    factory.settle_intakes(START)
    assert left_over(url) == (0, 2000, 2000)
    assert factory.balance()[0].available == 2000
    assert factory.audit() == []
    with (
        pytest.raises(IntakeError, match=r"INTAKE\.DUPLICATE"),
        factory.intake("esbpp", "large.esbpp.jsonl", DIGEST, START),
    ):
        pytest.fail("it is imported")


def test_one_import_at_a_time(factory: Factory, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import_chips(factory, (chip_item(number) for number in (1, 2)))
    staged, go = Event(), Event()

    def hold() -> None:
        with closing(Factory.open(url)) as other, other.intake("esbpp", "one", "1", START) as intake:
            for slot in (0, 1):
                intake.add_package(package_item(1, slot))
                if slot == 0:
                    staged.set()
                    go.wait(10)

    monkeypatch.setattr(module, "CHUNK_ITEMS", 1)
    thread = Thread(target=hold)
    thread.start()
    try:
        assert staged.wait(10)
        monkeypatch.setattr(module, "_WAIT_S", 0.1)
        with pytest.raises(ServiceError, match=r"INTAKE\.BUSY"), factory.intake("esbpp", "two", "2", START) as intake:
            intake.add_package(package_item(2))
        factory.settle_intakes(START)  # not ours to settle
        with factory.intake("esbpp", "dry", "3", START, dry_run=True) as intake:
            intake.add_package(package_item(2))
    finally:
        go.set()
        thread.join()
    with factory.intake("esbpp", "two", "2", START) as intake:
        intake.add_package(package_item(2))
    assert states(factory, 1) + states(factory, 2) == ["AVAILABLE"] * 3
    assert left_over(url)[0] == 0


def refused(factory: Factory, wanted: list[tuple[int, int]], *, dry_run: bool = False) -> tuple[IfppError, ...]:
    """Take in a file of these chips and slots that must be refused; return its bad items."""
    try:
        with factory.intake("esbpp", "dry", "digest", START, dry_run=dry_run) as intake:
            for number, slot in wanted:
                intake.add_package(package_item(number, slot), where=f"dry:{number}/{slot}")
    except IntakeError as error:
        return error.items
    pytest.fail("it was not refused")


def test_a_dry_run_finds_what_an_import_would_and_writes_nothing(factory: Factory, url: str) -> None:
    stock(factory, 2)
    wanted = [(1, 1), (2, 0), (2, 1), (2, 1), (9, 0)]
    assert [(item.code, item.where) for item in refused(factory, wanted, dry_run=True)] == [
        ("INTAKE.DUPLICATE", "dry:2/0"),
        ("INTAKE.DUPLICATE", "dry:2/1"),
        ("INTAKE.UNKNOWN_EID", "dry:9/0"),
    ]
    with factory.intake("esbpp", "dry", "digest", START, dry_run=True) as intake:
        intake.add_package(package_item(1, 1))
    assert left_over(url) == (0, 2, 2)
    assert len(factory.batches()) == 2


def test_the_same_item_far_apart_in_one_file_is_found(factory: Factory) -> None:
    import_chips(factory, (chip_item(number) for number in range(1, 301)))
    (bad,) = refused(factory, [(number, 0) for number in [*range(1, 301), 1]])
    assert (bad.code, bad.where) == ("INTAKE.DUPLICATE", "dry:1/0")
    assert "twice in this file" in bad.detail


def test_job_orders_come_in_a_file_of_their_own(factory: Factory, url: str) -> None:
    with pytest.raises(IntakeError, match="file of their own"):
        take_mixed(factory)
    assert factory.batches() == []
    assert factory.jobs("L1") == []
    assert left_over(url) == (0, 0, 0)


def take_mixed(factory: Factory) -> None:
    with factory.intake("mixed", "mixed", "digest", START) as intake:
        intake.add_chip(chip_item(1))
        intake.add_job("L1", job())


def test_contents_of_packages_are_not_deleted_from_outside(factory: Factory, url: str) -> None:
    """What no package refers to may go: it was never taken in."""
    stock(factory, 1)
    with raw(url) as connection:
        connection.execute("INSERT INTO package_bytes SELECT 'new', bpp FROM package_bytes")
        connection.execute("DELETE FROM package_bytes WHERE sha256 = 'new'")
    with pytest.raises(Exception, match="history is neither changed nor deleted"), raw(url) as connection:
        connection.execute("DELETE FROM package_bytes")

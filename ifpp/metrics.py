"""Every Prometheus series of ifpp in one table, and the registry of one process.

Rules (line contract 5.3): counters and histograms only count what this process saw; exact figures are gauges set
from the database. No serial number, EID, ICCID, package or job order is ever a label; every label has few values.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    start_http_server,
)

from ifpp import __version__
from ifpp.errors import SettingsError

disable_created_metrics()  # type: ignore[no-untyped-call]  # they would add a series to every counter and say only when the process started


class Role(StrEnum):
    """Which process keeps a series."""

    STATION = "station"
    STORE = "store"
    SUPERVISOR = "supervisor"


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Series:
    """One row of the table. `unit` is the last word of the name where it has one; `buckets` of histograms only."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    unit: str
    meaning: str
    roles: frozenset[Role]
    buckets: tuple[float, ...] = ()


SERIES: list[Series] = []
"""Every series, in the order of this file."""

_LATENCY_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_LOAD_S = (0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0, 60.0, 120.0, 240.0)
_BATCH = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)


def _series(
    role: str, kind: Kind, name: str, labels: str, meaning: str, *, unit: str = "", buckets: tuple[float, ...] = ()
) -> Series:
    roles = frozenset(Role(word) for word in role.split())
    row = Series(name, kind, tuple(labels.split()), unit, meaning, roles, buckets)
    SERIES.append(row)
    return row


# fmt: off
BUILD = _series("station store supervisor", Kind.GAUGE, "ifpp_build_info", "version role",
    "Always 1; which software runs.")

UNIT_RESULTS = _series("station", Kind.COUNTER, "ifpp_unit_results_total",
    "line station head operation product result",
    "Attempts finished, by verdict (PASS, FAIL, ERROR, ABORTED, SKIPPED).")
FIRST_PASS = _series("station", Kind.COUNTER, "ifpp_first_pass_total", "line station operation product",
    "Units whose first attempt passed.")
DEFECTS = _series("station", Kind.COUNTER, "ifpp_defects_total", "line station head code",
    "Faults met while working on units, by code of the fault table.")
STATE_SECONDS = _series("station", Kind.COUNTER, "ifpp_state_seconds_total", "line station head e10",
    "Time a head spent in each SEMI E10 state.", unit="seconds")
FAILURES = _series("station", Kind.COUNTER, "ifpp_failures_total", "line station head",
    "Entries of a head into unscheduled down (SEMI E10 failures).")
LOAD_SECONDS = _series("station", Kind.HISTOGRAM, "ifpp_load_seconds", "line station product",
    "Time from PrepareDownload to the installation result.", unit="seconds", buckets=_LOAD_S)
APDUS = _series("station", Kind.COUNTER, "ifpp_apdus_total", "line station head",
    "Commands exchanged with chips.")
CLAIM_SECONDS = _series("station", Kind.HISTOGRAM, "ifpp_claim_seconds", "line station",
    "Time the store took to answer a claim.", unit="seconds", buckets=_LATENCY_S)
JOURNAL_COMMIT_SECONDS = _series("station", Kind.HISTOGRAM, "ifpp_journal_commit_seconds", "line station",
    "Time until a journal transaction was on the disk.", unit="seconds", buckets=_LATENCY_S)
OUTBOX_DEPTH = _series("station", Kind.GAUGE, "ifpp_outbox_depth", "line station",
    "Events recorded here and not yet acknowledged by the supervisor.")
OUTBOX_OLDEST_SECONDS = _series("station", Kind.GAUGE, "ifpp_outbox_oldest_seconds", "line station",
    "Age of the oldest event not yet acknowledged; 0 when there is none.", unit="seconds")
OUTBOX_REJECTED = _series("station", Kind.GAUGE, "ifpp_outbox_rejected", "line station",
    "Events recorded here that the supervisor put aside.")
OUTBOX_ALARM = _series("station", Kind.GAUGE, "ifpp_outbox_alarm", "line station",
    "1 while events wait too long or fill four fifths of the outbox, 2 while it is full, else 0.")
ACCEPTING = _series("station", Kind.GAUGE, "ifpp_station_accepting", "line station",
    "1 while the station takes new units, 0 while it refuses them.")
HELD_UNITS = _series("station", Kind.GAUGE, "ifpp_held_units", "line station",
    "Units that must not go on until their chip was read again.")

INSERTIONS = _series("station", Kind.COUNTER, "ifpp_insertions_total", "line station head",
    "Units that were seated and came to their end on a head.")
CONTACT_FAILURES = _series("station", Kind.COUNTER, "ifpp_contact_failures_total", "line station head",
    "Seatings over which a head lost contact, or never had it.")
SOCKET_CYCLES = _series("station", Kind.GAUGE, "ifpp_socket_cycles", "line station head",
    "Insertions of the present socket.")
MAINTENANCE_DUE = _series("station", Kind.GAUGE, "ifpp_maintenance_due", "line station head",
    "1 while a socket has seen all the insertions it is made for, else 0.")
QUARANTINED = _series("station", Kind.GAUGE, "ifpp_head_quarantined", "line station head",
    "1 while a head takes no units until a person releases it, else 0.")
HEAD_ALARMS = _series("station", Kind.GAUGE, "ifpp_head_alarm", "line station head code",
    "1 while an alarm of a head stands (A-110 contact, A-111 fails, A-112 worn, A-113 socket due), else 0.")
SECONDS_PER_KB = _series("station", Kind.GAUGE, "ifpp_head_kilobyte_seconds", "line station head",
    "Time a load takes for 1000 bytes of package, mean of the last loads.", unit="seconds")

CACHED_UNITS = _series("station", Kind.GAUGE, "ifpp_cached_units", "line station",
    "Chips whose packages are kept at the station, to work while the store is away.")
CACHED_OLDEST_SECONDS = _series("station", Kind.GAUGE, "ifpp_cached_oldest_seconds", "line station",
    "Age of the package kept for longest; 0 when there is none.", unit="seconds")
CACHED_LEASE_SECONDS = _series("station", Kind.GAUGE, "ifpp_cached_lease_seconds", "line station",
    "Until the first kept package may not be loaded any more; below 0 when it may not.", unit="seconds")
STORE_AWAY_SECONDS = _series("station", Kind.GAUGE, "ifpp_store_away_seconds", "line station",
    "How long the station has worked without the store; 0 while it answers.", unit="seconds")

ALARMS = _series("station supervisor", Kind.GAUGE, "ifpp_alarms", "line node priority state",
    "Alarms that are not NORMAL, by priority (1 high to 3 low) and state; _line: all of the line.")
ALARM_STANDING = _series("supervisor", Kind.GAUGE, "ifpp_alarm_standing", "line code priority",
    "Alarms of line and stations whose cause stands and that nobody set aside; code other: none of ours.")
ALARM_CHANGES = _series("station supervisor", Kind.COUNTER, "ifpp_alarm_changes_total", "line node state",
    "Changes of an alarm's state, by the state it went to; UNACK_ALARM: it rang.")
ALARM_FLOOD = _series("supervisor", Kind.GAUGE, "ifpp_alarm_flood", "line",
    "1 while more alarms come than a person can take in (more than ten in ten minutes), else 0.")

BROKER_CONNECTED = _series("station supervisor", Kind.GAUGE, "ifpp_broker_connected", "line node",
    "1 while connected to the broker, else 0.")
BROKER_CONNECTIONS = _series("station supervisor", Kind.COUNTER, "ifpp_broker_connections_total", "line node",
    "Connections made to the broker since the process started.")
BROKER_DROPPED = _series("station supervisor", Kind.COUNTER, "ifpp_broker_dropped_total", "line node reason",
    "Received messages thrown away unread: queue_full or too_big.")

EVENTS = _series("supervisor", Kind.COUNTER, "ifpp_events_total", "line outcome",
    "Events received from stations, by outcome: taken, duplicate or rejected.")
CONTRACT_VIOLATIONS = _series("supervisor", Kind.COUNTER, "ifpp_contract_violation_total", "line schema reason",
    "Documents that broke the line contract; schema is one of the contract's names or unknown.")
ROUTE_CHECKS = _series("supervisor", Kind.COUNTER, "ifpp_route_checks_total", "line result source",
    "Route checks answered to stations; source is MES, CACHE or OFF (nobody decided).")
ROUTE_CHECKS_LATE = _series("supervisor", Kind.COUNTER, "ifpp_route_checks_late_total", "line result",
    "Answers of the MES about units that had gone on without one, as the route policy allows.")
COMMIT_EVENTS = _series("supervisor", Kind.HISTOGRAM, "ifpp_commit_events", "line",
    "Events settled in one database transaction.", buckets=_BATCH)
COMMIT_SECONDS = _series("supervisor", Kind.HISTOGRAM, "ifpp_commit_seconds", "line",
    "Time of one settling transaction, to the disk.", unit="seconds", buckets=_LATENCY_S)
COMMIT_FAILURES = _series("supervisor", Kind.COUNTER, "ifpp_commit_failures_total", "line",
    "Settling transactions that failed and were tried again.")
UNACKED_OLDEST_SECONDS = _series("supervisor", Kind.GAUGE, "ifpp_unacknowledged_oldest_seconds", "line",
    "How long the oldest received event has waited for its commit; 0 when there is none.", unit="seconds")
PACKAGES = _series("supervisor", Kind.GAUGE, "ifpp_packages", "sku region smdp state",
    "Packages in the ledger of the whole factory, by state.")
REPORTS_OVERDUE = _series("supervisor", Kind.GAUGE, "ifpp_reports_overdue", "line",
    "Profile Loading Reports that their SM-DPf has not acknowledged in time (alarm A-160).")
COVERAGE_CHIPS = _series("supervisor", Kind.GAUGE, "ifpp_coverage_chips", "sku region",
    "Chips with a package that can be loaded, of the whole factory.")
COVERAGE_HOURS = _series("supervisor", Kind.GAUGE, "ifpp_coverage_hours", "sku region",
    "How long they last at the rate of the last hour, in hours; NaN while nothing is made.")
LOW_STOCK = _series("supervisor", Kind.GAUGE, "ifpp_low_stock", "sku region",
    "1 while they last less than store.low_stock_hours, else 0.")
OPEN_OLDEST_SECONDS = _series("supervisor", Kind.GAUGE, "ifpp_open_package_oldest_seconds", "state",
    "Age of the oldest package that is CLAIMED, SENT or UNKNOWN; 0 when there is none.", unit="seconds")
AUDIT_UNSIGNED = _series("supervisor", Kind.GAUGE, "ifpp_audit_unsigned_entries", "chain",
    "Entries of a chain of the audit log that no signature covers yet.")
LINE_UNITS = _series("supervisor", Kind.GAUGE, "ifpp_line_units", "line verdict",
    "Units of the line's job orders, exact from the database: units, passed, failed.")
KPI_RATIO = _series("supervisor", Kind.GAUGE, "ifpp_kpi_ratio", "line window ratio",
    "Figures of the present hour, shift and job order, exact from the database: fpy, final_yield, oee and its parts.")
KPI_UNITS = _series("supervisor", Kind.GAUGE, "ifpp_kpi_units", "line window count",
    "What they are made of: units_in, first_pass, good.")
KPI_UPH = _series("supervisor", Kind.GAUGE, "ifpp_kpi_uph", "line window",
    "Good units an hour of the clock.")
KPI_COMPLETE = _series("supervisor", Kind.GAUGE, "ifpp_kpi_complete", "line window",
    "1 while no event of an ended window is missing, else 0.")
STATIONS_ONLINE = _series("supervisor", Kind.GAUGE, "ifpp_stations_online", "line",
    "Stations of the line that say they are online.")
SPARKPLUG_BORN = _series("supervisor", Kind.GAUGE, "ifpp_sparkplug_born", "line",
    "1 while the line is shown to SCADA as a Sparkplug edge node, else 0.")
SPARKPLUG_REFUSED = _series("supervisor", Kind.COUNTER, "ifpp_sparkplug_refused_total", "line reason",
    "What Sparkplug hosts said and the line did not do: write, payload, too_big, retained or state.")
LINE_EPOCH = _series("supervisor", Kind.GAUGE, "ifpp_line_epoch", "line",
    "Epoch of the line's lease this supervisor holds; 0 while it holds none.")

CERTIFICATE_EXPIRES_SECONDS = _series("station store supervisor", Kind.GAUGE, "ifpp_certificate_expires_seconds",
    "line node file",
    "Time until the first certificate or revocation list in a file ends; below 14 days alarm A-161, below 0 ended.",
    unit="seconds")
STORE_SECONDS = _series("store", Kind.HISTOGRAM, "ifpp_store_request_seconds", "operation status",
    "Time to answer a station, by operation and HTTP status.", unit="seconds", buckets=_LATENCY_S)
STORE_REFUSALS = _series("store", Kind.COUNTER, "ifpp_store_refusals_total", "operation code",
    "Requests and connections refused for who asked or what was asked, by code of the fault table.")

KEY_OPERATIONS = _series("station store supervisor", Kind.COUNTER, "ifpp_key_operations_total",
    "token operation result",
    "Operations of the key device; result is ok or a code of the fault table.")
KEY_SECONDS = _series("station store supervisor", Kind.HISTOGRAM, "ifpp_key_operation_seconds", "token operation",
    "Time of an operation of the key device, waiting included.", unit="seconds", buckets=_LATENCY_S)
KEY_WAIT_SECONDS = _series("station store supervisor", Kind.HISTOGRAM, "ifpp_key_wait_seconds", "token",
    "Time an operation waited for a session of the key device.", unit="seconds", buckets=_LATENCY_S)
KEY_RECONNECTS = _series("station store supervisor", Kind.COUNTER, "ifpp_key_reconnects_total", "token",
    "How often the process logged in to the key device again after a loss.")
KEY_TOKEN_PRESENT = _series("station store supervisor", Kind.GAUGE, "ifpp_key_token_present", "token",
    "1 while the token with the keys answers, else 0.")
# fmt: on


class Exposition:
    """A running HTTP endpoint `http://127.0.0.1:<port>/metrics`, served by its own thread."""

    def __init__(self, server: WSGIServer, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread
        self.port: int = server.server_port

    def close(self) -> None:
        """Stop serving; blocks for at most half a second."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Metrics:
    """The series of one process, in a registry of its own.

    `fixed` gives labels that are the same for the whole process (``line="L1", station="st01"``); they are filled in
    wherever a series declares them. Writing a series of another role or kind raises KeyError, other labels ValueError.
    """

    def __init__(self, role: Role, **fixed: str) -> None:
        self.registry = CollectorRegistry()
        self._fixed = fixed
        mine = [row for row in SERIES if role in row.roles]
        self._counters = {
            row: Counter(row.name, row.meaning, row.labels, registry=self.registry)
            for row in mine
            if row.kind is Kind.COUNTER
        }
        self._gauges = {
            row: Gauge(row.name, row.meaning, row.labels, registry=self.registry)
            for row in mine
            if row.kind is Kind.GAUGE
        }
        self._histograms = {
            row: Histogram(row.name, row.meaning, row.labels, registry=self.registry, buckets=row.buckets)
            for row in mine
            if row.kind is Kind.HISTOGRAM
        }
        ProcessCollector(registry=self.registry)
        self.set(BUILD, 1, version=__version__, role=role)

    def add(self, series: Series, amount: float = 1.0, **labels: str) -> None:
        """Count `amount` more; for counters."""
        self._counters[series].labels(**self._all(series, labels)).inc(amount)

    def set(self, series: Series, value: float, **labels: str) -> None:
        """Show a value; for gauges."""
        self._gauges[series].labels(**self._all(series, labels)).set(value)

    def observe(self, series: Series, value: float, *, example: str = "", **labels: str) -> None:
        """Note one measurement in the series' unit; for histograms.

        `example`: id of the transaction it was measured on. It is no label: OpenMetrics readers get it as an exemplar.
        """
        exemplar = {"transaction_id": example} if example else None
        self._histograms[series].labels(**self._all(series, labels)).observe(value, exemplar)

    @contextmanager
    def timed(self, series: Series, *, example: str = "", **labels: str) -> Iterator[None]:
        """Observe how long the block took, in seconds, also when it raises."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.observe(series, time.perf_counter() - start, example=example, **labels)

    def value(self, name: str, **labels: str) -> float:
        """Return one sample by its exposed name (a histogram has `_count` and `_sum`); 0.0 when never written."""
        return self.registry.get_sample_value(name, labels) or 0.0

    def text(self) -> bytes:
        """Return all series in the Prometheus text format."""
        return generate_latest(self.registry)

    def serve(self, port: int, host: str = "127.0.0.1") -> Exposition:
        """Answer scrapes from a thread; port 0 takes any free one. Raises SettingsError when the port is taken."""
        try:
            return Exposition(*start_http_server(port, host, registry=self.registry))
        except OSError as error:
            raise SettingsError(
                "SETTINGS.INVALID", f"cannot listen: {error}", where=f"metrics {host}:{port}"
            ) from error

    def _all(self, series: Series, labels: dict[str, str]) -> dict[str, str]:
        return {**{name: value for name, value in self._fixed.items() if name in series.labels}, **labels}

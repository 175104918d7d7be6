"""The table of series, one process's registry, and its HTTP endpoint."""

from __future__ import annotations

import re
import socket
import urllib.request

import pytest

from ifpp import metrics as table
from ifpp.errors import SettingsError
from ifpp.metrics import SERIES, Kind, Metrics, Role

UNIT_IDENTIFIERS = {"sn", "eid", "iccid", "unit", "package", "package_id", "job", "job_order", "transaction_id"}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(Role.STATION, line="L1", station="st01")


def test_names_are_unique_and_follow_prometheus() -> None:
    names = [row.name for row in SERIES]
    assert len(set(names)) == len(names)
    for row in SERIES:
        assert re.fullmatch(r"ifpp_[a-z0-9_]+", row.name)
        assert row.name.endswith("_total") == (row.kind is Kind.COUNTER)
        assert row.name.removesuffix("_total").endswith(f"_{row.unit}" if row.unit else "")
        assert ("seconds" in row.name.split("_")) == (row.unit == "seconds")
        assert bool(row.buckets) == (row.kind is Kind.HISTOGRAM)
        assert row.meaning.endswith(".")
        assert row.roles


def test_no_label_names_a_unit() -> None:
    for row in SERIES:
        assert not UNIT_IDENTIFIERS & set(row.labels), row.name
        assert len(row.labels) <= 6


@pytest.mark.parametrize("role", Role)
def test_a_process_exposes_its_series_and_itself(role: Role) -> None:
    text = Metrics(role).text().decode()
    for row in SERIES:
        assert (f"# TYPE {row.name} " in text) == (role in row.roles)
    assert f'ifpp_build_info{{role="{role}"' in text
    assert "process_cpu_seconds_total" in text
    assert "process_resident_memory_bytes" in text
    assert "_created" not in text


def test_fixed_labels_are_filled_in(metrics: Metrics) -> None:
    metrics.add(table.UNIT_RESULTS, head="h01", operation="PROFILE_LOAD", product="P1", result="PASS")
    metrics.add(table.UNIT_RESULTS, 2, head="h01", operation="PROFILE_LOAD", product="P1", result="PASS")
    labels = {"line": "L1", "station": "st01", "head": "h01", "operation": "PROFILE_LOAD", "product": "P1"}
    assert metrics.value("ifpp_unit_results_total", **labels, result="PASS") == 3.0
    assert metrics.value("ifpp_unit_results_total", **labels, result="FAIL") == 0.0


def test_gauges_histograms_and_timing(metrics: Metrics) -> None:
    metrics.set(table.OUTBOX_DEPTH, 7)
    metrics.observe(table.LOAD_SECONDS, 2.5, product="P1")
    with metrics.timed(table.CLAIM_SECONDS):
        pass
    with pytest.raises(ZeroDivisionError), metrics.timed(table.CLAIM_SECONDS):
        _ = 1 // 0
    assert metrics.value("ifpp_outbox_depth", line="L1", station="st01") == 7.0
    assert metrics.value("ifpp_load_seconds_sum", line="L1", station="st01", product="P1") == 2.5
    assert metrics.value("ifpp_claim_seconds_count", line="L1", station="st01") == 2.0


def test_a_foreign_series_or_label_is_refused(metrics: Metrics) -> None:
    with pytest.raises(KeyError):
        metrics.add(table.EVENTS, outcome="taken")
    with pytest.raises(KeyError):
        metrics.set(table.UNIT_RESULTS, 1)
    with pytest.raises(ValueError, match="label"):
        metrics.add(table.APDUS, head="h01", eid="89049032123451234512345678901235")


def test_registries_are_separate() -> None:
    one, other = Metrics(Role.STORE), Metrics(Role.STORE)
    one.observe(table.STORE_SECONDS, 0.1, operation="claim", status="200")
    assert b'operation="claim"' in one.text()
    assert b'operation="claim"' not in other.text()


def test_scrapes_are_answered_until_closed(metrics: Metrics) -> None:
    metrics.set(table.OUTBOX_DEPTH, 3)
    endpoint = metrics.serve(0)
    url = f"http://127.0.0.1:{endpoint.port}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            assert b'ifpp_outbox_depth{line="L1",station="st01"} 3.0' in answer.read()
    finally:
        endpoint.close()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", endpoint.port)) != 0


def test_a_taken_port_is_a_settings_error(metrics: Metrics) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SettingsError, match=r"metrics 127\.0\.0\.1"):
            metrics.serve(taken.getsockname()[1])


def busy_station() -> Metrics:
    """64 heads with every state, alarm and the faults a bad day brings."""
    metrics = Metrics(Role.STATION, line="L1", station="st01")
    per_head = [row for row in SERIES if Role.STATION in row.roles and "head" in row.labels]
    values = {
        "result": ("PASS", "FAIL", "ERROR"),
        "e10": ("PRD", "SBY", "UDT"),
        "code": ("A-110", "A-111", "A-112", "A-113"),
    }
    for head in range(64):
        for row in per_head:
            varying = [label for label in row.labels if label in values]
            for value in values[varying[0]] if varying else ("",):
                labels = dict.fromkeys(varying, value) | {"head": f"h{head:02}"}
                labels |= {label: "TCU-4G-EU" for label in row.labels if label in ("operation", "product")}
                (metrics.add if row.kind is Kind.COUNTER else metrics.set)(row, 1, **labels)
    for product in ("TCU-4G-EU", "TCU-4G-US", "TCU-5G-EU", "TCU-5G-US"):
        metrics.observe(table.LOAD_SECONDS, 4.0, example=f"0f6e1f0e-{product}", product=product)
    for operation in ("sign", "wrap", "unwrap", "random"):
        metrics.observe(table.KEY_SECONDS, 0.004, token="hsm", operation=operation)
    return metrics


def test_a_station_of_64_heads_is_bounded() -> None:
    """2,000 series and 150 kB."""
    text = busy_station().text()
    assert sum(not line.startswith(b"#") for line in text.splitlines()) < 2000
    assert len(text) < 150_000


def test_a_measurement_names_its_transaction_to_readers_of_openmetrics(metrics: Metrics) -> None:
    metrics.observe(table.LOAD_SECONDS, 4.0, example="0f6e1f0e-2a30-4b1c-8fd6-6bfb0d3c9a10", product="P1")
    exposition = metrics.serve(0)
    try:
        address = f"http://127.0.0.1:{exposition.port}/metrics"
        asked = urllib.request.Request(address, headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        with urllib.request.urlopen(asked, timeout=20) as answer:  # noqa: S310 - our own address
            text = answer.read().decode()
    finally:
        exposition.close()
    assert '# {transaction_id="0f6e1f0e-2a30-4b1c-8fd6-6bfb0d3c9a10"} 4.0' in text
    assert "transaction_id" not in metrics.text().decode()

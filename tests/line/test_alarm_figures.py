"""The figures of alarms equal what one counts by hand, in any order and with repetitions."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ifpp.line.alarm_figures import figures
from ifpp.model.clock import utc_ms_text
from ifpp.model.messages import Alarm
from tests.clock import START

END = START + timedelta(days=2)
TOLD = st.lists(st.tuples(st.integers(0, 2 * 86_399), st.integers(0, 4)), max_size=80)


def change(number: int, at: datetime, source: str = "st01/h01", state: str = "UNACK_ALARM", **more: object) -> Alarm:
    return Alarm(
        schema="alarm/1.0", id=f"{number}", ts=utc_ms_text(at), node_id="st01", boot_id="b", alarm_id=f"a{number}",
        code="A-110", source=source, priority=2, kind="EQUIPMENT", state=state, old_state="NORMAL", text="", action="",
        first_at=utc_ms_text(at), **more,  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_flood_a_frequent_a_stale_and_a_chattering_one() -> None:
    flood = [change(n, START + timedelta(seconds=n), f"st01/h{n:02}") for n in range(11)]
    frequent = [change(100 + n, START + timedelta(hours=1 + n)) for n in range(5)]
    ended = [change(200 + n, START + timedelta(hours=9), state="NORMAL", count=3) for n in range(1)]
    found = figures([*flood, *frequent, *ended], START, END)
    assert (found.rings, found.per_day, round(found.per_hour, 3)) == (16, 8.0, 0.333)
    assert (found.periods, found.flood_periods) == (288, 1)
    assert found.top[0] == (("A-110", "st01/h01"), 6)
    assert found.top_share == 15 / 16
    assert ("A-110", "st01/h10") in found.stale
    assert found.chattering == [("A-110", "st01/h01")]


@given(TOLD, st.randoms(use_true_random=False))
def test_order_and_repetition_change_nothing(told: list[tuple[int, int]], chance: random.Random) -> None:
    changes = [change(n, START + timedelta(seconds=s), f"st01/h{h:02}") for n, (s, h) in enumerate(told)]
    shuffled = [*changes, *chance.sample(changes, len(changes) // 2)]
    chance.shuffle(shuffled)
    found = figures(shuffled, START, END)
    assert found == figures(changes, START, END)
    assert found.rings == len(told)
    periods = [seconds // 600 for seconds, _ in told]
    assert found.flood_periods == sum(periods.count(one) > 10 for one in set(periods))

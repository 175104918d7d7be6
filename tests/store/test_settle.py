"""The rules of settlement, apart from any database."""

from __future__ import annotations

from itertools import product

import pytest

from ifpp.errors import CustodyError
from ifpp.model.messages import ProfileResult
from ifpp.model.states import PACKAGE_TRANSITIONS, PackageState
from ifpp.store.settle import Standing, Told, path, told
from tests.store.world import outcome

S = PackageState
STANDINGS = [Standing(state, False) for state in S if state is not S.INSTALLED]
STANDINGS += [Standing(S.INSTALLED, True), Standing(S.FAILED, True)]
SETTLED = [standing for standing in STANDINGS if standing.spent or standing.state is S.DESTROYED]


def say(state: str, *, spent: bool = False) -> ProfileResult:
    return outcome(1, 0, state, spent=spent)


def steps(now: Standing, word: Told, holder: bool) -> tuple[PackageState, ...]:
    """The path, empty also for a refusal."""
    try:
        return path(now, word, holder=holder)
    except CustodyError:
        return ()


@pytest.mark.parametrize(("now", "word", "holder"), list(product(STANDINGS, Told, (True, False))))
def test_every_path_is_one_of_allowed_steps(now: Standing, word: Told, holder: bool) -> None:
    state = now.state
    for following in steps(now, word, holder):
        assert following in PACKAGE_TRANSITIONS[state]
        state = following


@pytest.mark.parametrize(("now", "word", "holder"), list(product(SETTLED, Told, (True, False))))
def test_a_settled_package_never_moves(now: Standing, word: Told, holder: bool) -> None:
    assert steps(now, word, holder) == ()


@pytest.mark.parametrize(("now", "word"), list(product(STANDINGS, Told)))
def test_who_says_it_never_makes_more_of_a_word_than_the_holder_may(now: Standing, word: Told) -> None:
    assert steps(now, word, False) in ((), steps(now, word, True))


@pytest.mark.parametrize("holder", [True, False])
@pytest.mark.parametrize("now", [standing for standing in STANDINGS if standing not in SETTLED])
def test_what_is_on_the_chip_is_true_whoever_says_it(now: Standing, holder: bool) -> None:
    assert path(now, Told.INSTALLED, holder=holder)[-1] is S.INSTALLED
    assert path(now, Told.SPENT, holder=holder)[-1] is S.FAILED


def test_a_result_makes_up_for_the_steps_the_ledger_missed() -> None:
    assert path(Standing(S.CLAIMED, False), Told.INSTALLED, holder=True) == (S.SENT, S.INSTALLED)
    assert path(Standing(S.AVAILABLE, False), Told.INSTALLED, holder=False) == (S.CLAIMED, S.SENT, S.INSTALLED)
    assert path(Standing(S.FAILED, False), Told.INSTALLED, holder=False) == (S.CLAIMED, S.SENT, S.INSTALLED)


@pytest.mark.parametrize("state", [S.SENT, S.UNKNOWN])
def test_only_the_holder_may_call_a_sent_package_usable(state: PackageState) -> None:
    assert path(Standing(state, False), Told.USABLE, holder=True) == (S.FAILED,)
    assert path(Standing(state, False), Told.USABLE, holder=False) == ()


def test_unknown_is_taken_from_anybody_while_the_ledger_thinks_nothing_was_sent() -> None:
    assert path(Standing(S.AVAILABLE, False), Told.UNKNOWN, holder=False) == (S.CLAIMED, S.SENT, S.UNKNOWN)
    assert path(Standing(S.SENT, False), Told.UNKNOWN, holder=True) == (S.UNKNOWN,)
    assert path(Standing(S.SENT, False), Told.UNKNOWN, holder=False) == ()


def test_an_untouched_package_goes_back() -> None:
    assert path(Standing(S.CLAIMED, False), Told.UNTOUCHED, holder=True) == (S.AVAILABLE,)
    assert path(Standing(S.CLAIMED, False), Told.UNTOUCHED, holder=False) == ()
    assert path(Standing(S.SENT, False), Told.UNTOUCHED, holder=True) == ()


@pytest.mark.parametrize(
    ("now", "word"),
    [
        (Standing(S.FAILED, True), Told.INSTALLED),
        (Standing(S.DESTROYED, False), Told.INSTALLED),
        (Standing(S.INSTALLED, True), Told.SPENT),
    ],
)
def test_words_that_cannot_both_be_true_are_refused(now: Standing, word: Told) -> None:
    with pytest.raises(CustodyError, match="EVENT_REFUSED"):
        path(now, word, holder=True)


@pytest.mark.parametrize(
    ("result", "word"),
    [
        (say("INSTALLED"), Told.INSTALLED),
        (say("FAILED", spent=True), Told.SPENT),
        (say("FAILED"), Told.USABLE),
        (say("UNKNOWN"), Told.UNKNOWN),
        (say("SENT"), Told.UNKNOWN),
        (say("CLAIMED"), Told.UNTOUCHED),
        (say("AVAILABLE"), Told.UNTOUCHED),
    ],
)
def test_words_of_a_station(result: ProfileResult, word: Told) -> None:
    assert told(result) is word


@pytest.mark.parametrize("state", ["DESTROYED", "", "installed", "MELTED"])
def test_words_no_station_may_say(state: str) -> None:
    with pytest.raises(CustodyError, match="EVENT_REFUSED"):
        told(say(state))

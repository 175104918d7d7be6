"""Is one head worse than its siblings? Exact binomial tails: a few units must be enough, and no table is needed."""

from __future__ import annotations

from math import exp, lgamma, log, log1p

_NEGLIGIBLE = 1e-12  # of the sum so far


def at_least(failures: int, trials: int, rate: float) -> float:
    """Return the probability of `failures` or more in `trials` at a failure rate between 0 and 1, ends excluded."""
    if failures <= 0:
        return 1.0
    term = exp(
        lgamma(trials + 1)
        - lgamma(failures + 1)
        - lgamma(trials - failures + 1)
        + failures * log(rate)
        + (trials - failures) * log1p(-rate)
    )
    total, ratio = term, rate / (1 - rate)
    for count in range(failures, trials):
        term *= (trials - count) / (count + 1) * ratio
        total += term
        if term < _NEGLIGIBLE * total:
            break
    return min(total, 1.0)


def smoothed(failures: int, trials: int) -> float:
    """Return a failure rate that is never 0 or 1, whatever was seen (Laplace's rule of succession)."""
    return (failures + 1) / (trials + 2)


def is_worse(own: tuple[int, int], siblings: tuple[int, int], confidence: float) -> bool:
    """Tell whether the lower bound of one's own failure rate lies above the siblings' rate.

    Both are (failures, trials). The bound is Clopper's and Pearson's, one-sided; it is above a rate exactly when so
    many failures or more would have a probability below 1 - `confidence` there.
    """
    if not siblings[1]:
        return False  # nobody to compare with
    return at_least(*own, smoothed(*siblings)) < 1 - confidence

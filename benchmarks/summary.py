"""Statistics of samples and of ratios, both in rounds: what was measured at the same time is compared."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Rounds = Sequence[Sequence[float]]  # the samples of each round


@dataclass(frozen=True)
class Summary:
    """Of all samples of all rounds."""

    best: float
    lower_quartile: float
    median: float
    upper_quartile: float
    p99: float
    samples: int


def summarise(rounds: Rounds) -> Summary:
    samples = np.concatenate([np.asarray(samples, float) for samples in rounds])
    return Summary(*(float(v) for v in np.percentile(samples, [0, 25, 50, 75, 99])), samples.size)


@dataclass(frozen=True)
class Ratio:
    """Of the medians of each round: the median over the rounds, and their quartiles as its noise."""

    low: float
    median: float
    high: float
    best: float  # of the best samples of all rounds


def ratio(numerator: Rounds, denominator: Rounds) -> Ratio:
    """Rounds of the same number belong together."""
    medians = [[np.median(samples) for samples in rounds] for rounds in (numerator, denominator)]
    low, median, high = np.percentile(np.divide(*medians), [25, 50, 75])
    best = min(map(min, numerator)) / min(map(min, denominator))
    return Ratio(float(low), float(median), float(high), float(best))

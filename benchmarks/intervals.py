"""How often intervals and tests over seeds and cases are right, by simulation.

usage: python benchmarks/intervals.py [--repeats N] [--few]

Differences between two variants are drawn with a true mean of 0: a normal part per case, one per
seed, and a rest, with the deviations of points of Dice. An interval should contain 0 in 95 of 100
experiments, and p should be below 0.05 in 5. For comparison: the interval over the cases of the
first seed alone, and its Wilcoxon test, as a run with one seed reports them.

With --few: normal scores of few cases and one seed, by the bootstrap and by Student's t.
"""

import argparse

import numpy as np
from scipy import stats

from keras_medseg.evaluation import statistics

OF_CASES, OF_SEEDS, REST = 0.10, 0.02, 0.05
"""Standard deviations of the three parts."""


def simulate(seeds: int, cases: int, repeats: int) -> dict[str, float]:
    """Shares of the experiments, in percent."""
    rng = np.random.default_rng([seeds, cases])
    counts = dict.fromkeys(("interval", "p < 0.05", "interval of one", "p < 0.05 of one"), 0)
    for _ in range(repeats):
        differences = (
            rng.normal(0, OF_CASES, cases)
            + rng.normal(0, OF_SEEDS, (seeds, 1))
            + rng.normal(0, REST, (seeds, cases))
        )
        one = differences[0]
        for name, values in (("interval", differences), ("interval of one", one)):
            low, high = statistics.bootstrap_interval(values)
            counts[name] += low <= 0 <= high
        if seeds > 1:
            counts["p < 0.05"] += statistics.seeds_and_units_test(differences).p < 0.05
        counts["p < 0.05 of one"] += statistics.paired_wilcoxon(one, 0 * one).p < 0.05
    return {name: 100 * count / repeats for name, count in counts.items()}


def simulate_few(cases: int, repeats: int) -> dict[str, float]:
    """Shares of the experiments whose interval contains the mean, in percent."""
    rng = np.random.default_rng(cases)
    counts = dict.fromkeys(("bootstrap", "t"), 0)
    for _ in range(repeats):
        values = rng.standard_normal(cases)
        intervals = {
            "bootstrap": statistics.bootstrap_interval(values),
            "t": stats.t.interval(0.95, cases - 1, values.mean(), stats.sem(values)),
        }
        for name, (low, high) in intervals.items():
            counts[name] += low <= 0 <= high
    return {name: 100 * count / repeats for name, count in counts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--few", action="store_true", help="intervals of few cases alone")
    arguments = parser.parse_args()
    repeats = arguments.repeats
    if arguments.few:
        for cases in (3, 4, 6, 10, 20):
            shown = "  ".join(
                f"{name} {share:.1f}" for name, share in simulate_few(cases, repeats).items()
            )
            print(f"{cases} cases, {repeats} experiments, in %:  {shown}", flush=True)
        return
    print(f"deviations: cases {OF_CASES}, seeds {OF_SEEDS}, rest {REST}; {repeats} experiments")
    for cases in (20, 43, 200):
        for seeds in (2, 3, 5, 10):
            shown = "  ".join(
                f"{name} {share:.1f}" for name, share in simulate(seeds, cases, repeats).items()
            )
            print(f"{cases} cases, {seeds} seeds, in %:  {shown}", flush=True)


if __name__ == "__main__":
    main()

"""A case of BraTS' size by `predict`, beside the time of its three networks alone.

    python benchmarks/predict_case.py [--rounds 5] [--cases 4] [--precision mixed_bfloat16]

The networks are dcabes2020's with new weights, which take as long as trained ones; the cases are
synthetic, 240x240x155 voxels in four files each. In every round the cases are predicted from their
files to their label maps, and the networks alone see as many batches of zeros. Shown are the
medians of seconds per case and of the rounds' ratios, and the peak memory after each round.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path


def make_run(folder: Path, chosen=None) -> None:
    """A run folder with untrained networks of a recipe, by default of dcabes2020's own."""
    from keras_medseg import registry
    from keras_medseg.runs import papers
    from keras_medseg.runs.run_folder import RunFolder, Variant

    chosen = chosen or papers.recipe_module("dcabes2020").RECIPE
    run = RunFolder(folder)
    run.create(chosen, {"main": Variant(chosen, "main", {})}, {})
    for targets in chosen.model.targets:
        place = run.training("main", targets)
        place.mkdir(parents=True)
        shape = (*chosen.data.input_size, len(chosen.data.modalities))
        registry.build(chosen.model.name, input_shape=shape, **chosen.model.options).save(
            place / "model.keras"
        )


def networks_alone(member, cases: int) -> float:
    """Seconds per case of the networks on as many batches as a case has."""
    import numpy as np

    data, size = member.chosen.recipe.data, member.chosen.recipe.train.batch_size
    batch = np.zeros((size, *data.window[:2], 4), np.float32)
    start = time.perf_counter()
    for _ in range(cases):
        for network in member.networks.values():
            for _ in range(0, data.window[2], size):
                network.predict_on_batch(batch)
    return (time.perf_counter() - start) / cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", type=int, default=4)
    parser.add_argument("--precision", default=None)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    from keras_medseg import phantoms
    from keras_medseg.runs import provenance
    from keras_medseg.runs.members import members
    from keras_medseg.runs.predict_folder import Options, predict_with, prepared

    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        make_run(work / "run")
        phantoms.write(work / "cases", layout="BraTS2021", cases=arguments.cases)
        options = Options(precision=arguments.precision)
        all_members = prepared(members([work / "run"]), options)
        networks_alone(all_members[0], 1)  # pays for compiling
        rows, peaks = [], []
        for number in range(arguments.rounds):
            alone = networks_alone(all_members[0], arguments.cases)
            start = time.perf_counter()
            predict_with(all_members, work / "cases", work / f"out{number}", options)
            rows.append(((time.perf_counter() - start) / arguments.cases, alone))
            peaks.append(provenance.peak_memory_gb()["peak_memory_gb_main"])
        whole, alone = (statistics.median(side) for side in zip(*rows))
        ratio = statistics.median(case / networks for case, networks in rows)
        print(f"{arguments.rounds} rounds of {arguments.cases} cases, {arguments.precision}")
        print(f"a case {whole:.2f} s, its networks {alone:.2f} s, ratio {ratio:.2f}")
        print(f"peak memory after each round, GB: {', '.join(f'{gb:.2f}' for gb in peaks)}")


if __name__ == "__main__":
    sys.exit(main())

"""CPU time of a training step: dcabes2020's network and those that it is compared with.

    python benchmarks/training_steps.py [--batch 1] [--steps 3]

Every network has its full width and the paper's recipe (profile paper-compare). One thread, and the
time that the processor spent, so that other programs on the machine hardly matter. Data loading and
validation are not counted, nor is the first step, which compiles.
"""

import argparse
import os
import time

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}

import keras
import numpy as np
import tensorflow as tf

from keras_medseg import recipe
from keras_medseg.runs import papers
from keras_medseg.training import fit

PAPER = papers.recipe_module("dcabes2020")


def main() -> None:
    """Print one line for each network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch", type=int, default=1, help="slices in a step (the paper has 32)")
    parser.add_argument("--steps", type=int, default=3, help="the fastest of so many is shown")
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    shape = (arguments.batch, *PAPER.RECIPE.data.input_size)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((*shape, 4)).astype("float32")
    y = (rng.random((*shape, 1)) > 0.9).astype("float32")
    print(f"{'network':24}{'parameters':>12}{'CPU seconds a slice':>22}")
    for name, changes in PAPER.EXPERIMENT.profiles["paper-compare"].variants.items():
        chosen = recipe.override(PAPER.RECIPE, changes)
        network, model = fit.compile_network(chosen, ("WT",), channels=4)
        model.train_on_batch(x, y)  # compiles
        times = []
        for _ in range(arguments.steps):
            started = time.process_time()
            model.train_on_batch(x, y)
            times.append(time.process_time() - started)
        seconds = min(times) / arguments.batch
        print(f"{name:24}{network.count_params():>12,}{seconds:>22.2f}", flush=True)
        keras.utils.clear_session()


if __name__ == "__main__":
    main()

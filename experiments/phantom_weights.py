"""Train the small weights that come with the package: `python -m experiments.phantom_weights`.

They are trained on synthetic brains, so that the quick start and the tests have something to load
that anyone may have. It takes a few minutes on two cores.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from keras_medseg import phantoms, recipe
from keras_medseg.runs import experiment, installed, packages, packing
from keras_medseg.runs.run_folder import RunFolder

NAME = "phantom/brats2021-small"
SIZE = (48, 48, 32)
CASES = 48

RECIPE = recipe.Recipe(
    name="phantom",
    data=recipe.Slices(
        dataset="brats",
        window=SIZE,
        normalization="z_score",
        flips=("x", "y"),
        validation=0.25,
        slice_step=2,
    ),
    model=recipe.Model(
        name="residual_attention_unet",
        targets=(("WT", "TC", "ET"),),
        options={"filters": 4, "attention": False, "residual_block": "plain_single"},
    ),
    train=recipe.Train(
        epochs=24,
        batch_size=8,
        optimizer="adam",
        learning_rate=0.005,
        loss="cross_entropy_and_dice",
        loss_options={"output_weights": (1.0, 1.0, 1.0)},
        schedule="polynomial",
        schedule_options={"power": 0.9},
        precision="float32",
        seed=0,
    ),
)

CARD = """
A demonstration: the smallest network that finds the drawn tumors. `experiments/phantom_weights.py`
in the repository of keras_medseg trains it again.
"""


def main() -> int:
    """Train, pack, and unpack into the package."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        phantoms.write(work / "cases", layout="BraTS2021", cases=CASES, seed=0, size=SIZE)
        request = experiment.Request(
            out=work / "run",
            folder=work / "cases",
            profile="train",
            command="python -m experiments.phantom_weights",
            store=work / "store",
        )
        experiment.run(experiment.of_recipe(RECIPE), request)
        archive = work / "weights.zip"
        packing.pack(RunFolder(work / "run"), archive, name=NAME, license="Apache-2.0", card=CARD)
        folder = work / "weights"
        packages.unpack(archive, folder)
        packages.open_weights(folder)
        target = installed.SHIPPED / NAME
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)
    return 0


if __name__ == "__main__":
    sys.exit(main())

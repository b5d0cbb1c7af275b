"""One experiment, step by step: folder -> store -> split -> networks -> label maps -> scores.

Every step finds what an earlier, interrupted run has finished and goes on from there.
"""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pandas as pd

from keras_medseg import __version__, recipe
from keras_medseg.data import cases, splits, store
from keras_medseg.data.batches.base import CaseBatches
from keras_medseg.data.datasets.brats import MODALITIES
from keras_medseg.errors import DataError, require_choice
from keras_medseg.files import write_atomic, write_json
from keras_medseg.phantoms.folder import is_phantom
from keras_medseg.progress import bar
from keras_medseg.runs import run_folder
from keras_medseg.runs.run_folder import read_scores, read_variant, training_folder
from keras_medseg.tasks import images, volumes

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Cohort:
    """Decoded cases, split into those trained on and those held out.

    duplicates: {dropped case: the case with the same voxels that stays}.
    torn_groups: patients or video sequences on both sides of the split.
    datasets: as `Case.dataset` has them, sorted. phantom: whether a case of them is synthetic.
    """

    name: str
    store: store.Store
    training: tuple[str, ...]
    held_out: tuple[str, ...]
    duplicates: dict[str, str]
    torn_groups: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    phantom: bool = False

    @property
    def channels(self) -> int:
        """Image channels of every case."""
        return next(iter(self.store.cases.values())).image.shape[-1]


def family(run: recipe.Recipe) -> ModuleType:
    """The module that knows this recipe's kind of data: `volumes` or `pictures`."""
    return images if isinstance(run.data, recipe.Pictures) else volumes


def family_of(folder: Path) -> ModuleType:
    """The module that knows the data in `folder`: `volumes` where there is a NIfTI file."""
    files = (path for _, _, names in os.walk(folder, followlinks=True) for path in names)
    return volumes if any(name.endswith((".nii", ".nii.gz")) for name in files) else images


def load_data(folder: Path, store_folder: Path, run: recipe.Recipe) -> Cohort:
    """Find the cases of `folder`, decode them into `store_folder` once, and split them.

    Of cases with the same voxels (one patient in the releases of several years) the first by
    name stays, so that none is both trained on and held out.

    Raises:
        DataError: naming the folder or files that are not as they should be.
        ValueError: with fewer than two cases.
    """
    kind = family(run)
    found = kind.find_cases(folder)
    with bar("decoding cases") as progress:
        decoded = store.prepare(found, kind.reader(run), store_folder, progress=progress)
    first: dict[str, str] = {}
    duplicates = {}
    for name in sorted(decoded.cases):
        kept = first.setdefault(decoded.cases[name].voxels_sha256, name)
        if kept != name:
            duplicates[name] = kept
    unique = [case for case in found if case.id not in duplicates]
    training, held_out = kind.split(folder, unique, run)
    datasets = tuple(sorted({case.dataset for case in unique}))
    phantom = any(is_phantom(case.images[0]) for case in unique)
    return Cohort(
        name=("phantom in the layout of " if phantom else "") + ", ".join(datasets),
        store=decoded,
        training=tuple(case.id for case in training),
        held_out=tuple(case.id for case in held_out),
        duplicates=duplicates,
        torn_groups=tuple(splits.leaking_groups(training, held_out)),
        datasets=datasets,
        phantom=phantom,
    )


def settle(run: recipe.Recipe, data: Cohort) -> recipe.Recipe:
    """The recipe with those numbers that it leaves to the training cases."""
    return family(run).settle(run, data.store, data.training)


def trained_as(variants: Mapping[str, recipe.Recipe]) -> dict[str, str]:
    """{variant: the first one that is trained alike}; they may differ in what follows training."""
    first: dict[str, str] = {}
    return {
        name: first.setdefault(recipe.to_json(replace(variant, predict=recipe.Predict())), name)
        for name, variant in variants.items()
    }


def claim(
    out: Path, run: recipe.Recipe, data: Cohort, variants: Mapping[str, recipe.Recipe]
) -> None:
    """Make `out` the run folder of this recipe and its variants on these cases.

    Writes `recipe.json`, `variants/<name>.json` and, at last, `run.json`. Everything in the folder
    is taken for this run's, so nothing else may be in it.

    Raises:
        DataError: when it already holds a run of another recipe, of other data, of another split
            or of another version of the package.
    """
    asked = {
        "keras_medseg": __version__,
        "data": data.name,
        "fingerprint": data.store.fingerprint,
        "training": list(data.training),
        "held_out": list(data.held_out),
        "variants": list(variants),
    }
    if (out / run_folder.RUN).exists() or (out / "training").exists():
        _refuse_other_run(out, run, asked, variants)
    write_atomic(out / run_folder.RECIPE, recipe.to_json(run).encode())
    for name, source in trained_as(variants).items():
        tree = {**json.loads(recipe.to_json(variants[name])), "trained_as": source}
        write_json(run_folder.variant_file(out, name), tree)
    write_json(out / run_folder.RUN, asked)


def _refuse_other_run(
    out: Path, run: recipe.Recipe, asked: dict, variants: Mapping[str, recipe.Recipe]
) -> None:
    earlier = run_folder.read_run(out)
    changed = recipe.differences(run, run_folder.read_recipe(out / run_folder.RECIPE))
    changed |= {k: (v, earlier.get(k)) for k, v in asked.items() if earlier.get(k) != v}
    for name in () if changed else variants:
        theirs = read_variant(out, name).recipe
        found = recipe.differences(variants[name], theirs)
        changed |= {f"{field} of {name}": values for field, values in found.items()}
    if changed:
        field, (now, then) = next(iter(changed.items()))
        raise DataError(
            out,
            found=f"a run with {field} = {then!r}",
            expected=f"{now!r} as asked for now",
            remedy="Choose another run folder (OUT=, --out), or delete this one.",
        )


def check_recipe(run: recipe.Recipe, channels: int) -> None:
    """Build what the recipe names, so that a mistake in it is met before anything is written.

    channels: of the cases.

    Raises:
        ValueError: naming the field.
    """
    import keras

    from keras_medseg.inference import complexity
    from keras_medseg.training import fit

    _check_fields(run)
    for regions in {len(names): names for names in run.model.networks}.values():
        seen = recipe.input_channels(run, channels)
        network, model = fit.compile_network(run, regions, channels=seen)
        targets = len(regions) + len(run.model.auxiliary)
        fit.check_loss(run, network, model, targets)
        complexity.multiply_adds(network)
        keras.utils.clear_session()


def _check_fields(run: recipe.Recipe) -> None:
    kind = family(run)
    if not run.model.networks or not all(run.model.networks):
        raise ValueError(
            f"model.networks: found {run.model.networks}, expected the regions of at least one "
            "network, such as (('WT',),)."
        )
    for name in (name for names in run.model.networks for name in names):
        require_choice("model.networks", name, kind.regions(run))
    for name in run.model.auxiliary:
        require_choice("model.auxiliary", name, kind.targets(run))
    if not isinstance(run.data, recipe.Pictures):
        _check_modalities(run.data.modalities)
    field, axes = recipe.SIZES[type(run.data)]
    size = getattr(run.data, field)
    if len(size) != axes or min(size) < 1:
        raise ValueError(f"data.{field}: found {size}, expected {axes} sizes of 1 or more.")
    if min(run.train.epochs, run.train.batch_size) < 1:
        raise ValueError("train.epochs, train.batch_size: expected 1 or more.")


def _check_modalities(names: Sequence[str]) -> None:
    for name in names:
        require_choice("data.modalities", name, MODALITIES)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"data.modalities: found {names}, expected one or more, each once.")


def check_batches(run: recipe.Recipe, data: Cohort) -> None:
    """Make the batches of both sides, which check the recipe against the data.

    Raises:
        ValueError: naming the field.
    """
    for regions in run.model.networks:
        batches(run, data.store, data.training, regions, training=True)
        batches(run, data.store, data.held_out, regions, training=False)


def train_variant(variant: str, run: recipe.Recipe, data: Cohort, out: Path) -> None:
    """Train the recipe's networks one after the other."""
    import keras

    from keras_medseg.training import fit

    for number, regions in enumerate(run.model.networks, 1):
        print(
            f"training {variant}, network {number} of {len(run.model.networks)}: "
            f"{run.model.name} for {'+'.join(regions)}",
            flush=True,
        )
        feed = batches(run, data.store, data.training, regions, training=True)
        check = batches(run, data.store, data.held_out, regions, training=False)
        folder = training_folder(out, variant, regions)
        fit.fit(run, regions, feed, check, folder)
        keras.utils.clear_session()


def batches(
    run: recipe.Recipe,
    decoded: store.Store,
    case_ids: Sequence[str],
    regions: Sequence[str],
    *,
    training: bool,
) -> CaseBatches:
    """The recipe's batches; shuffled, mirrored and so on only for training.

    One channel of targets for each of `regions`, then one for each auxiliary output.
    """
    names = (*regions, *run.model.auxiliary)
    return family(run).batches(run, decoded, case_ids, names, training=training)


def load_network(
    out: Path, variant: str, regions: tuple[str, ...], *, auxiliary: bool = False
) -> "keras.Model":
    """One trained network of a run folder; its main output, or with `auxiliary` all of them.

    Raises:
        DataError: when it was not trained to its end.
    """
    import keras

    from keras_medseg import registry
    from keras_medseg.inference import predict

    registry.import_layers()
    path = training_folder(out, variant, regions) / "model.keras"
    if not path.exists():
        raise DataError(
            path,
            found="no file",
            expected="a trained network",
            remedy="Train first; the command that started the run goes on with it.",
        )
    network = keras.saving.load_model(path, compile=False)
    return network if auxiliary else predict.main_output(network)


def load_networks(out: Path, variant: str, run: recipe.Recipe) -> dict[str, "keras.Model"]:
    """The networks that a variant's recipe names, by the regions they find: "WT+TC".

    Raises:
        DataError: when one was not trained to its end.
    """
    return {"+".join(names): load_network(out, variant, names) for names in run.model.networks}


def score_variant(
    variant: str, run: recipe.Recipe, data: Cohort, out: Path, trained_as: str | None = None
) -> pd.DataFrame:
    """Predict the held-out cases, write what was predicted, score it; one row per region.

    trained_as: the variant whose networks are used, where this one has none of its own.

    Rows are added to `scores.csv` case by case; cases that stand there are not predicted again.
    """
    kind = family(run)
    path = out / run_folder.SCORES
    (out / "predictions" / variant).mkdir(parents=True, exist_ok=True)
    scores = read_scores(out) if path.exists() else pd.DataFrame(columns=["variant", "case"])
    done = set(scores.loc[scores["variant"] == variant, "case"])
    left = [case for case in data.held_out if case not in done]
    networks = load_networks(out, trained_as or variant, run) if left else {}
    with bar(f"predicting {variant}") as progress:
        for number, name in enumerate(left, 1):
            case = data.store.cases[name]
            predicted = kind.predict(networks, case, run)
            kind.write(prediction(out, run, variant, name), predicted, run, case)
            rows = kind.score(predicted, case, run)
            new = pd.DataFrame([{"variant": variant, "case": name, **row} for row in rows])
            scores = pd.concat([scores, new], ignore_index=True) if len(scores) else new
            write_atomic(path, scores.to_csv(index=False).encode())
            progress(number, len(left), name)
    return scores[scores["variant"] == variant]


def prediction(out: Path, run: recipe.Recipe, variant: str, case_id: str) -> Path:
    """Where the label map of a held-out case lies in a run folder."""
    return out / "predictions" / variant / f"{case_id}{family(run).SUFFIX}"


def network_costs(out: Path, variants: Mapping[str, recipe.Recipe]) -> pd.DataFrame:
    """What each variant's networks cost together, see `complexity.costs`; `networks.csv`."""
    from keras_medseg.inference import complexity

    rows = [
        {"variant": name, **complexity.costs(load_networks(out, name, run).values())}
        for name, run in variants.items()
    ]
    table = pd.DataFrame(rows)
    write_atomic(out / "networks.csv", table.to_csv(index=False).encode())
    return table


def gather_logs(out: Path) -> pd.DataFrame:
    """All trainings' logs as one table, `log.csv` of the run folder."""
    table = pd.concat(run_folder.read_logs(out), names=["network"]).reset_index("network")
    table = table.sort_values(["network", "epoch"], ignore_index=True)
    write_atomic(out / "log.csv", table.to_csv(index=False).encode())
    return table


def predict_folder(run: Path, folder: Path, out: Path, variant: str | None = None) -> str:
    """Write a label map for every case of `folder`; segmentations are neither needed nor read.

    Label maps that are there already stay, so a stopped command can be given again; a case that
    cannot be read does not keep the others from being predicted.

    run: the run folder. variant: which of its variants; by default its first.

    Returns:
        One line: how many label maps, of which regions, by which variant.

    Raises:
        DataError: for a run that is not as it should be, and in the end for all cases that are not.
        ValueError: the run has no such variant.
    """
    variant = variant or run_folder.read_run(run)["variants"][0]
    chosen = read_variant(run, variant)
    networks = load_networks(run, chosen.trained_as, chosen.recipe)
    kind = family(chosen.recipe)
    found = kind.find_cases(folder, labelled=False)
    refused = []
    with bar("predicting") as progress:
        for number, case in enumerate(found, 1):
            path = out / f"{case.id}{kind.SUFFIX}"
            try:
                if not path.exists():
                    _predict_file(networks, replace(case, labels=None), chosen.recipe, path)
            except DataError as error:
                refused.append(error)
            progress(number, len(found), case.id)
    if refused:
        raise DataError(
            out,
            found=f"{len(found) - len(refused)} of {len(found)} label maps; "
            + " ".join(map(str, refused)),
            expected="one for every case",
            remedy="Mend these files and give the same command again; it does what is left.",
        )
    return f"{out}: {len(found)} label maps of {', '.join(networks)} by the variant {variant}"


def _predict_file(
    networks: Mapping[str, "keras.Model"], case: cases.Case, run: recipe.Recipe, path: Path
) -> None:
    kind = family(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        decoded = store.prepare([case], kind.reader(run), scratch, workers=1).cases[case.id]
        predicted = kind.predict(networks, decoded, run)
        kind.write(path, predicted, run, decoded, source=case)


def score_folder(predictions: Path, folder: Path, regions: Sequence[str]) -> pd.DataFrame:
    """Score label maps, `<case>.nii.gz` or `<case>.png`, against those of the cases in `folder`.

    regions: which of "WT", "TC", "ET" the label maps of volumes tell apart.

    Raises:
        DataError: for a case without prediction, or a label map on another grid.
    """
    rows = []
    kind = family_of(folder)
    found = kind.find_cases(folder)
    with bar("scoring") as progress:
        for number, case in enumerate(found, 1):
            path = predictions / f"{case.id}{kind.SUFFIX}"
            for row in kind.score_file(path, case, regions):
                rows.append({"variant": predictions.name, "case": case.id, **row})
            progress(number, len(found), case.id)
    return pd.DataFrame(rows)

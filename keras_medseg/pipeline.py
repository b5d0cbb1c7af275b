"""One experiment, step by step: folder -> store -> split -> networks -> label maps -> scores.

Every step finds what an earlier, interrupted run has finished and goes on from there.
"""

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from keras_medseg import recipe, scoring
from keras_medseg.choices import require_choice
from keras_medseg.data import brats, cases, nifti, store
from keras_medseg.data.batches import SliceBatches
from keras_medseg.errors import DataError
from keras_medseg.files import write_atomic
from keras_medseg.progress import bar

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Cohort:
    """Decoded cases, split into those trained on and those held out.

    duplicates: {dropped case: the case with the same voxels that stays}.
    """

    name: str
    store: store.Store
    training: tuple[str, ...]
    held_out: tuple[str, ...]
    duplicates: dict[str, str]

    @property
    def channels(self) -> int:
        """Image channels of every case."""
        return next(iter(self.store.cases.values())).image.shape[-1]


def load_data(folder: Path, store_folder: Path, run: recipe.Recipe) -> Cohort:
    """Find the cases of `folder`, decode them into `store_folder` once, and split them.

    Of cases with the same voxels (one patient in the releases of several years) the first by
    name stays, so that none is both trained on and held out.

    Raises:
        DataError: naming the folder or files that are not as they should be.
        ValueError: with fewer than two cases.
    """
    found = brats.find_cases(folder)
    with bar("decoding cases") as progress:
        decoded = store.prepare(found, brats.read_case, store_folder, progress=progress)
    first: dict[str, str] = {}
    duplicates = {}
    for name in sorted(decoded.cases):
        kept = first.setdefault(decoded.cases[name].voxels_sha256, name)
        if kept != name:
            duplicates[name] = kept
    unique = [case for case in found if case.id not in duplicates]
    training, held_out = cases.split_cases(unique, run.data.held_out, run.train.seed)
    return Cohort(
        name=_data_name(unique),
        store=decoded,
        training=tuple(case.id for case in training),
        held_out=tuple(case.id for case in held_out),
        duplicates=duplicates,
    )


def claim(out: Path, run: recipe.Recipe, data: Cohort) -> None:
    """Make `out` the run folder of this recipe on these cases: `recipe.json`, `cases.json`.

    Everything in the folder is taken for this run's, so nothing else may be in it.

    Raises:
        DataError: when it already holds a run of another recipe, of other data or another split.
    """
    cases_found = {
        "data": data.name,
        "fingerprint": data.store.fingerprint,
        "training": list(data.training),
        "held_out": list(data.held_out),
    }
    path = out / "cases.json"
    if (out / "recipe.json").exists() and path.exists():
        changed = recipe.differences(run, read_recipe(out))
        earlier = json.loads(path.read_text())
        changed |= {k: (v, earlier.get(k)) for k, v in cases_found.items() if earlier.get(k) != v}
        if changed:
            field, (now, then) = next(iter(changed.items()))
            raise DataError(
                out,
                found=f"a run with {field} = {then!r}",
                expected=f"{now!r} as asked for now",
                remedy="Choose another run folder (OUT=, --out), or delete this one.",
            )
    write_atomic(out / "recipe.json", recipe.to_json(run).encode())
    write_atomic(path, (json.dumps(cases_found, indent=2) + "\n").encode())


def check_recipe(run: recipe.Recipe, channels: int) -> None:
    """Build what the recipe names, so that a mistake in it is met before anything is written.

    Raises:
        ValueError: naming the field.
    """
    import keras

    from keras_medseg import training

    for name in (*(name for names in run.model.networks for name in names), *run.model.auxiliary):
        require_choice("model.networks", name, brats.TARGETS)
    training.build(run, run.model.networks[0], channels=channels)
    keras.utils.clear_session()


def read_scores(out: Path) -> pd.DataFrame:
    """`scores.csv` of a run folder; names such as 001 or NA stay names."""
    names = {"variant": str, "case": str, "region": str}
    return pd.read_csv(out / "scores.csv", dtype=names, na_filter=False)


def read_recipe(out: Path) -> recipe.Recipe:
    """The recipe of a run folder.

    Raises:
        DataError: when the folder holds no run.
    """
    path = out / "recipe.json"
    if not path.exists():
        raise DataError(
            path,
            found="no file",
            expected="the recipe of a run",
            remedy="Name the folder that a training wrote into.",
        )
    return recipe.from_json(path.read_text())


def training_folder(out: Path, variant: str, regions: tuple[str, ...]) -> Path:
    """Where one network's log, checkpoint and final model lie in a run folder."""
    return out / "training" / f"{variant}-{'+'.join(regions)}"


def train_variant(variant: str, run: recipe.Recipe, data: Cohort, out: Path) -> None:
    """Train the recipe's networks one after the other."""
    import keras

    from keras_medseg import training

    for number, regions in enumerate(run.model.networks, 1):
        print(
            f"training {variant}, network {number} of {len(run.model.networks)}: "
            f"{run.model.name} for {'+'.join(regions)}",
            flush=True,
        )
        feed = slice_batches(run, data.store, data.training, regions, training=True)
        check = slice_batches(run, data.store, data.held_out, regions, training=False)
        training.fit(run, regions, feed, check, training_folder(out, variant, regions))
        keras.utils.clear_session()


def slice_batches(
    run: recipe.Recipe,
    decoded: store.Store,
    case_ids: tuple[str, ...],
    regions: tuple[str, ...],
    *,
    training: bool,
) -> SliceBatches:
    """The recipe's batches of axial slices; shuffled and flipped only for training.

    One channel of targets for each of `regions`, then one for each auxiliary output.
    """
    targets = (*regions, *run.model.auxiliary)
    return SliceBatches(
        decoded,
        case_ids,
        # Numbered, for outputs may share a target.
        targets={f"{number}_{name}": brats.TARGETS[name] for number, name in enumerate(targets)},
        window=run.data.window,
        batch_size=run.train.batch_size,
        seed=run.train.seed,
        normalisation=run.data.normalisation,
        flips=run.data.flips if training else (),
        shuffle=training,
        slice_step=run.data.slice_step,
    )


def load_network(
    out: Path, variant: str, regions: tuple[str, ...], *, auxiliary: bool = False
) -> "keras.Model":
    """One trained network of a run folder; its main output, or with `auxiliary` all of them.

    Raises:
        DataError: when it was not trained to its end.
    """
    import keras

    from keras_medseg import inference, registry

    registry.list_models()  # makes the package's own layers known to Keras' loader
    path = training_folder(out, variant, regions) / "model.keras"
    if not path.exists():
        raise DataError(
            path,
            found="no file",
            expected="a trained network",
            remedy="Train first; the command that started the run goes on with it.",
        )
    network = keras.saving.load_model(path, compile=False)
    return network if auxiliary else inference.main_output(network)


def load_networks(out: Path, variant: str) -> dict[str, "keras.Model"]:
    """The networks of one variant, by the regions they find.

    Raises:
        DataError: when one was not trained to its end.
    """
    folders = sorted((out / "training").glob(f"{variant}-*"))
    names = [folder.name.removeprefix(f"{variant}-") for folder in folders]
    return {name: load_network(out, variant, tuple(name.split("+"))) for name in names}


def score_variant(
    variant: str, run: recipe.Recipe, data: Cohort, out: Path, trained_as: str | None = None
) -> pd.DataFrame:
    """Predict the held-out cases on the full grid, write NIfTI, score; one row per region.

    trained_as: the variant whose networks are used, where this one has none of its own.

    Rows are added to `scores.csv` case by case; cases that stand there are not predicted again.
    """
    from keras_medseg import inference

    path, folder = out / "scores.csv", out / "predictions" / variant
    folder.mkdir(parents=True, exist_ok=True)
    scores = read_scores(out) if path.exists() else pd.DataFrame(columns=["variant", "case"])
    done = set(scores.loc[scores["variant"] == variant, "case"])
    left = [case for case in data.held_out if case not in done]
    networks = {
        "+".join(names): load_network(out, trained_as or variant, names)
        for names in run.model.networks
        if left
    }
    regions = {name: brats.REGIONS[name] for names in run.model.networks for name in names}
    with bar(f"predicting {variant}") as progress:
        for number, name in enumerate(left, 1):
            case = data.store.cases[name]
            labels = label_case(networks, case, run)
            inference.write_prediction(folder / f"{name}.nii.gz", labels, case)
            rows = scoring.score_case(labels, full_labels(case), regions, case.spacing_mm)
            new = pd.DataFrame([{"variant": variant, "case": name, **row} for row in rows])
            scores = pd.concat([scores, new], ignore_index=True) if len(scores) else new
            write_atomic(path, scores.to_csv(index=False).encode())
            progress(number, len(left), name)
    return scores[scores["variant"] == variant]


def label_case(
    networks: dict[str, "keras.Model"], case: store.StoredCase, run: recipe.Recipe
) -> np.ndarray:
    """(X, Y, Z) uint8 canonical label map of a case, as the recipe reads and cleans it, LPS."""
    from keras_medseg import inference, postprocess

    labels = inference.predict_case(
        networks,
        case,
        window=run.data.window,
        normalisation=run.data.normalisation,
        batch_size=run.train.batch_size,
    )
    return postprocess.drop_small_components(labels, run.predict.smallest_component)


def gather_logs(out: Path) -> pd.DataFrame:
    """All trainings' logs as one table, `log.csv` of the run folder."""
    logs = {path.parent.name: pd.read_csv(path) for path in (out / "training").glob("*/log.csv")}
    table = pd.concat(logs, names=["network"]).reset_index("network")
    table = table.sort_values(["network", "epoch"], ignore_index=True)
    write_atomic(out / "log.csv", table.to_csv(index=False).encode())
    return table


def predict_folder(run_folder: Path, folder: Path, out: Path, variant: str | None = None) -> str:
    """Write a label map for every case of `folder`; segmentations are neither needed nor read.

    variant: which of the run's variants; by default the first that it scored.

    Returns:
        One line: how many label maps, of which regions, by which variant.

    Raises:
        DataError: for cases or a run that are not as they should be.
    """
    from keras_medseg import inference

    run = read_recipe(run_folder)
    variant = _variant_to_predict_with(run_folder, variant)
    networks = load_networks(run_folder, variant)
    found = [replace(case, labels=None) for case in brats.find_cases(folder, labelled=False)]
    out.mkdir(parents=True, exist_ok=True)
    with bar("predicting") as progress:
        for number, case in enumerate(found, 1):
            with tempfile.TemporaryDirectory() as scratch:
                decoded = store.prepare([case], brats.read_case, scratch).cases[case.id]
                labels = label_case(networks, decoded, run)
                inference.write_prediction(out / f"{case.id}.nii.gz", labels, decoded)
            progress(number, len(found), case.id)
    return f"{out}: {len(found)} label maps of {', '.join(networks)} by the variant {variant}"


def score_folder(
    predictions: Path, folder: Path, regions: Sequence[str] = tuple(brats.REGIONS)
) -> pd.DataFrame:
    """Score `<case>.nii.gz` label maps against the segmentations of the cases in `folder`.

    regions: which of them the label maps tell apart.

    Raises:
        DataError: for a case without prediction, or a label map on another grid.
    """
    rows, codes = [], {region: brats.REGIONS[region] for region in regions}
    found = brats.find_cases(folder)
    with bar("scoring") as progress:
        for number, case in enumerate(found, 1):
            path = predictions / f"{case.id}.nii.gz"
            _check_grid(path, case.labels)
            truth, labels = brats.read_case(case), brats.read_labels(path, case.dataset)
            for row in scoring.score_case(labels, truth.labels, codes, truth.spacing_mm):
                rows.append({"variant": predictions.name, "case": case.id, **row})
            progress(number, len(found), case.id)
    return pd.DataFrame(rows)


def _check_grid(path: Path, reference: Path) -> None:
    ours, theirs = nifti.read_header(path), nifti.read_header(reference)
    found = f"shape {ours.shape}"
    apart = np.inf
    if ours.shape == theirs.shape:
        apart = nifti.corner_distance_mm(ours.affine, theirs.affine, ours.shape)
        found = f"a grid {apart:.3g} mm away at a corner"
    if not apart <= nifti.TOLERANCE_MM:
        raise DataError(
            path,
            found=found,
            expected=f"the grid of {reference}",
            remedy="Predict on the case's own grid.",
        )


def full_labels(case: store.StoredCase) -> np.ndarray:
    """(X, Y, Z) uint8 canonical labels of a stored case on its full grid, LPS."""
    labels = np.zeros(case.full_shape, np.uint8)
    labels[_box(case)] = np.moveaxis(case.labels, 0, 2)
    return labels


def full_image(case: store.StoredCase) -> np.ndarray:
    """(X, Y, Z, C) raw voxels of a stored case on its full grid, LPS."""
    image = np.zeros((*case.full_shape, case.image.shape[-1]), case.image.dtype)
    image[_box(case)] = np.moveaxis(case.image, 0, 2)
    return image


def read_result(out: Path, variant: str, data: Cohort, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(annotated, predicted) label maps of a held-out case, (X, Y, Z) canonical, LPS."""
    case = data.store.cases[name]
    path = out / "predictions" / variant / f"{name}.nii.gz"
    return full_labels(case), brats.read_labels(path, case.dataset)


def _box(case: store.StoredCase) -> tuple[slice, slice, slice]:
    z, x, y = case.image.shape[:3]
    return tuple(slice(o, o + n) for o, n in zip(case.origin, (x, y, z)))


def _variant_to_predict_with(run_folder: Path, variant: str | None) -> str:
    trained = sorted((run_folder / "training").glob("*-*/model.keras"))
    variants = list(dict.fromkeys(path.parent.name.rpartition("-")[0] for path in trained))
    if not variants or (variant and variant not in variants):
        raise DataError(
            run_folder / "training",
            found=f"trained networks of {', '.join(variants) or 'no variant'}",
            expected=f"those of {variant}" if variant else "at least one",
            remedy="Train first, or name another variant.",
        )
    if variant is None and (run_folder / "scores.csv").exists():
        variants = [name for name in read_scores(run_folder)["variant"] if name in variants]
    return variant or variants[0]


def _data_name(found: list[cases.Case]) -> str:
    years = ", ".join(sorted({case.dataset for case in found}))
    folders = {parent for case in found for parent in case.images[0].resolve().parents}
    phantom = any((folder / "PHANTOM").exists() for folder in folders)
    return f"phantom in the layout of {years}" if phantom else years


def peak_memory_gb() -> dict[str, float]:
    """Largest resident memory so far: of this process, and of the largest decoding process."""
    import resource

    scale = 1 if os.uname().sysname == "Darwin" else 1024
    who = {"main": resource.RUSAGE_SELF, "decoding": resource.RUSAGE_CHILDREN}
    return {k: round(resource.getrusage(v).ru_maxrss * scale / 1e9, 2) for k, v in who.items()}

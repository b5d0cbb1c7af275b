"""Predict a folder of cases with the networks of a run."""

from dataclasses import replace
from pathlib import Path

from keras_medseg.data.cases import Case
from keras_medseg.data.store import StoredCase
from keras_medseg.errors import DataError
from keras_medseg.progress import progress_bar
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.tasks.base import Networks, Task


def predict_folder(run: RunFolder, folder: Path, out: Path, variant: str | None = None) -> str:
    """Write a label map for every case of `folder`; annotations are neither needed nor read.

    Existing label maps are kept, so an interrupted command can be repeated. A case that cannot be
    read does not stop the prediction of the others.

    Args:
        run: the run with the trained networks.
        folder: of the cases.
        out: folder of the label maps, `<case>.nii.gz` or `<case>.png`.
        variant: which variant of the run predicts; by default the first.

    Returns:
        One line: the number of label maps, their regions, and the variant.

    Raises:
        DataError: the run is incomplete or damaged; or, after all other cases, some cases cannot be
            read.
        ValueError: the run has no such variant.
    """
    variant = variant or run.run["variants"][0]
    task = run.variant(variant).task
    networks = run.networks(variant)
    cases = task.dataset.find(folder, labelled=False).cases
    refused = []
    with progress_bar("predicting") as progress:
        for number, case in enumerate(cases, 1):
            path = out / f"{case.id}{task.dataset.suffix}"
            try:
                if not path.exists():
                    _predict_case(task, networks, case, path)
            except DataError as error:
                refused.append(error)
            progress(number, len(cases), case.id)
    if refused:
        raise DataError(
            out,
            found=f"{len(cases) - len(refused)} of {len(cases)} label maps; "
            + " ".join(map(str, refused)),
            expected="one for every case",
            remedy="Mend these files and give the same command again; it does what is left.",
        )
    regions = ", ".join("+".join(names) for names in networks)
    return f"{out}: {len(cases)} label maps of {regions} by the variant {variant}"


def _predict_case(task: Task, networks: Networks, case: Case, path: Path) -> None:
    unlabelled = replace(case, labels=None)
    stored = StoredCase.from_arrays(unlabelled, task.read_image(case))
    path.parent.mkdir(parents=True, exist_ok=True)
    task.write(path, task.predict(networks, stored), stored, own_size=True)

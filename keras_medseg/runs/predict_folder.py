"""A whole folder of cases, predicted with the networks of a run."""

from pathlib import Path

from keras_medseg.data.cases import Case
from keras_medseg.data.store import StoredCase
from keras_medseg.errors import DataError
from keras_medseg.progress import progress_bar
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.tasks.base import Networks, Task


def predict_folder(run: RunFolder, folder: Path, out: Path, variant: str | None = None) -> str:
    """Write a label map for every case of `folder`; annotations are neither needed nor read.

    Label maps that are there already stay, so a stopped command can be given again; a case that
    cannot be read does not keep the others from being predicted.

    Args:
        run: whose networks predict.
        folder: of the cases.
        out: where the label maps go, `<case>.nii.gz` or `<case>.png`.
        variant: which of the run's variants; by default its first.

    Returns:
        One line: how many label maps, of which regions, by which variant.

    Raises:
        DataError: for a run that is not as it should be, and in the end for all cases that are not.
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
    unlabelled = Case(case.id, case.dataset, case.images, None, case.group)
    stored = StoredCase.from_arrays(unlabelled, task.reader(unlabelled))
    path.parent.mkdir(parents=True, exist_ok=True)
    task.write(path, task.predict(networks, stored), stored, own_size=True)

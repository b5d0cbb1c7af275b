"""Export of a trained prediction for other programs: a graph, and model.json that describes it.

A folder of an export holds the graph (`graph_functions.FILES`), model.json and card.md. model.json
has the form of a MONAI bundle's metadata.json, and under the key "keras_medseg" what only this
package says. docs/export.md describes it.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from keras_medseg import __version__, recipe
from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.store import StoredCase
from keras_medseg.errors import DataError, require_choice
from keras_medseg.files import sha256_of, write_atomic, write_json
from keras_medseg.inference import graph_functions, scan_plan
from keras_medseg.inference.export import TOLERANCE
from keras_medseg.inference.outputs import main_output
from keras_medseg.inference.scan_plan import LABELS, PROBABILITIES, ScanGraph
from keras_medseg.reporting import card
from keras_medseg.runs import packages
from keras_medseg.runs.members import Member
from keras_medseg.runs.packing import describe
from keras_medseg.runs.predictor import open_members
from keras_medseg.tasks import Task, task_of

FORMAT = 1
MODEL = "model.json"

_OTHER_LABELS = 1e-3
"""Share of voxels whose labels may differ: those whose probability is next to 1/2."""


@dataclass(frozen=True)
class Comparison:
    """A case predicted by the exported graph and by `keras-medseg predict`.

    Attributes:
        case: its id, or "noise".
        elements: of its label map, voxels or pixels; 0 if the graph has no labels.
        labelled: those that `predict` gives a label.
        different: those with another label.
        largest_difference: of the probabilities.
    """

    case: str
    elements: int
    labelled: int
    different: int
    largest_difference: float

    def __str__(self) -> str:
        maps = f"probabilities differ by at most {self.largest_difference:.2g}"
        if not self.elements:
            return f"{self.case}: {maps}"
        return (
            f"{self.case}: labels differ in {self.different} of {self.elements:,} "
            f"({self.labelled:,} labelled), {maps}"
        )

    def __add__(self, other: "Comparison") -> "Comparison":
        """Both cases together."""
        return Comparison(
            f"{self.case}, {other.case}",
            self.elements + other.elements,
            self.labelled + other.labelled,
            self.different + other.different,
            max(self.largest_difference, other.largest_difference),
        )


def export_scans(
    source: str, out: Path, format: str = graph_functions.SAVEDMODEL, cases: Path | None = None
) -> list[str]:
    """Write the networks of a run, with what surrounds them, as one graph of raw intensities.

    The graph is opened again and compared with `keras-medseg predict`: on noise, and on `cases`.

    Args:
        source: a run folder, RUN or RUN:VARIANT; an archive of weights; or weights by their name.
        out: a new folder.
        format: one of `graph_functions.FILES`.
        cases: folder of cases on which the graph is compared, too.

    Returns:
        Lines: what was written, what the caller has to do before and after it, the comparisons.

    Raises:
        DataError: the source is not complete or damaged, `out` is in use, or a case is not read.
        ValueError: the source has several trainings, or the graph computes something else.
        ImportError: the packages for ONNX are not installed.
    """
    require_choice("format", format, graph_functions.FILES)
    _require_new(out)
    with ExitStack() as opened:
        member = _one_member(source, open_members(source, opened))
        release = next(iter(member.run.run["datasets"]), "")
        graph = member.task.scan_graph(member.networks, release)
        if cases and graph.is_patch:
            found = f"--cases: found {cases}, but the graph of {source} takes patches"
            raise ValueError(f"{found}, expected a graph of whole scans. Leave it out.")
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(
            opened.enter_context(tempfile.TemporaryDirectory(prefix=".export-", dir=out.parent))
        )
        folder = staging / "export"
        folder.mkdir()
        path = graph_functions.write_graph(graph, folder, format)
        serve = graph_functions.open_graph(path)
        compared = [
            _compared(task, member, graph, serve, case, raw)
            for task in [_without_components(member)]
            for case, raw in _scans(task, graph, release, cases)
        ]
        manifest = _manifest(member)
        described = _described(manifest, member, graph, format)
        described["keras_medseg"] |= {
            "graph": {"format": format, "file": path.name, "files": _checksums(folder)},
            "compared": [asdict(one) for one in compared],
        }
        write_json(folder / MODEL, described)
        write_atomic(folder / packages.CARD, card.write_card(manifest).encode())
        os.replace(folder, out)
    outside = [
        f"{when}: {step.name}: {step.how}"
        for when, steps in (("before the graph", graph.before), ("after the graph", graph.after))
        for step in steps
    ]
    noise, *others = compared
    summary = [replace(sum(others[1:], others[0]), case=f"{len(others)} cases")] if others else []
    return [f"{out}: {format} of {manifest['name']}", *outside, *map(str, [noise, *summary])]


def _require_new(out: Path) -> None:
    if out.suffix in (".onnx", ".keras") or out.is_file():
        raise ValueError(f"{out}: found the name of a file, expected that of a new folder.")
    if out.is_dir() and any(out.iterdir()):
        raise DataError(
            out,
            found="a folder that is not empty",
            expected="a new folder",
            remedy="Choose another one, or delete it.",
        )


def _one_member(source: str, found: Any) -> Member:
    if len(found) == 1:
        return found[0]
    names = ", ".join(member.name for member in found[:3])
    raise ValueError(
        f"{source}: found {len(found)} trainings (folds, seeds), expected one. Name it: {names}."
    )


def _without_components(member: Member) -> Task:
    """The task without the step after the merging that no graph has."""
    whole = recipe.override(member.chosen.recipe, {"predict.smallest_component": 0.0})
    return task_of(whole, member.chosen.fitted)


def _scans(
    task: Task, graph: ScanGraph, release: str, folder: Path | None
) -> Iterator[tuple[Case, CaseArrays]]:
    """The scans on which a graph is compared."""
    generator = np.random.default_rng(0)
    if task.dataset.elements == "pixels":
        shape = (*graph.trial_shape, graph.inputs[0].shape[1] or 1)
        image, affine = generator.integers(0, 256, shape, dtype=np.uint8), np.eye(4)
    else:
        shape = (*graph.trial_shape, len(task.dataset.channels))
        image = generator.integers(1, 1000, shape, dtype=np.int16)
        image[generator.random(shape[:3]) < 0.2] = 0
        image[0, 0, 0] = image[-1, -1, -1] = 1  # nothing is cropped
        sizes = task.dataset.spacing_mm or (1.0, 1.0, 1.0)
        affine = np.diag([-sizes[0], -sizes[1], sizes[2], 1])
    yield Case("noise", release, (), None, "noise"), task.dataset.of_array(image, affine)
    for case in task.dataset.find_complete(folder)[0].cases if folder else ():
        yield case, task.dataset.read_image(case)


def _compared(
    task: Task,
    member: Member,
    graph: ScanGraph,
    serve: Callable[[graph_functions.Arrays], dict[str, np.ndarray]],
    case: Case,
    raw: CaseArrays,
) -> Comparison:
    """One scan through the exported graph and through the task.

    Raises:
        ValueError: they differ by more than rounding.
    """
    given = serve(task.scan_inputs(raw))
    # Images are resized for the task; the graph does it itself.
    read = raw
    if task.dataset.elements == "pixels":
        read = task.read_array(raw.image[:, :, 0], np.eye(4))
    stored = StoredCase.from_arrays(replace(case, labels=None), read)
    # On the grid that the graph sees, which for resampled volumes is not that of the files.
    stored = replace(stored, source_shape=raw.image.shape[:3])
    maps = task.probabilities(member.networks, stored, flips="")
    own = task.on_own_grid(maps, stored)
    expected = np.stack([own[name] for name in scan_plan.regions_of(graph.networks)])
    found = given[PROBABILITIES]
    if found.size != expected.size:
        raise ValueError(
            f"{case.id}: found probabilities of shape {found.shape}, expected {expected.shape}. "
            "Report it, with the weights."
        )
    found = found.reshape(expected.shape)
    apart, largest = float(np.abs(found - expected).max()), float(np.abs(expected).max())
    elements = labelled = different = 0
    if LABELS in given:
        labels = task.dataset.codes_on_disk(task.label_map(maps, stored), case.dataset)
        elements, labelled = labels.size, int(np.count_nonzero(labels))
        different = int(np.count_nonzero(given[LABELS].reshape(labels.shape) != labels))
    made = Comparison(case.id, elements, labelled, different, apart)
    if not (apart <= TOLERANCE * largest and different <= _OTHER_LABELS * elements):
        raise ValueError(
            f"{made}; expected at most {TOLERANCE} times the largest one, {largest:.3g}, and "
            f"{_OTHER_LABELS:g} of the labels. Report it, with the weights."
        )
    return made


def _manifest(member: Member) -> Mapping[str, Any]:
    if (member.run.path / packages.MANIFEST).exists():
        return packages.read_manifest(member.run.path)
    networks = {names: main_output(network) for names, network in member.networks.items()}
    return describe(member.run, member.variant, networks)


def _checksums(folder: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        found[name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    return found


def _described(
    manifest: Mapping[str, Any], member: Member, graph: ScanGraph, format: str
) -> dict[str, Any]:
    """model.json without the checksums and the comparisons."""
    names, data = scan_plan.regions_of(graph.networks), manifest["data"]
    rights = manifest["license"] or "Not stated. Ask who trained the networks."
    runtime = "onnxruntime" if format == graph_functions.ONNX else "tensorflow"
    volumes = member.task.dataset.elements == "voxels"
    return {
        "name": manifest["name"],
        "version": graph_functions.FILES[graph_functions.SAVEDMODEL],
        "numpy_version": version("numpy"),
        "required_packages_version": {runtime: version(runtime)},
        "task": f"segmentation of {', '.join(names)}",
        "description": " ".join(card.summary(manifest)),
        "authors": "Not stated.",
        "copyright": rights,
        "license": rights,
        "intended_use": card.NO_DEVICE,
        "data_source": data["name"],
        "data_type": "nifti" if volumes else "image files",
        "eval_metrics": {
            f"{row['region']} {row['metric']}": row["mean"] for row in manifest["scores"]
        },
        "network_data_format": {
            "inputs": dict(_inputs(manifest, graph)),
            "outputs": dict(_outputs(manifest, graph)),
        },
        "keras_medseg": {
            "format": FORMAT,
            "version": __version__,
            "network": manifest["network"],
            "axes": ["N", "C", *graph.axes],
            "orientation": "LPS" if volumes else "rows, columns",
            "spacing_mm": list(manifest["input"]["spacing_mm"]),
            "labels": manifest["output"]["labels"],
            "before": [step._asdict() for step in graph.before],
            "inside": [step._asdict() for step in graph.inside],
            "after": [step._asdict() for step in graph.after],
            "limits": list(card.limits(manifest)),
            "trained_on": data,
            "scores": manifest["scores"],
        },
    }


def _inputs(manifest: Mapping[str, Any], graph: ScanGraph) -> Iterator[tuple[str, dict[str, Any]]]:
    channels = manifest["input"]["channels_seen"]
    for spec in graph.inputs:
        whole = spec.name == "image"
        yield (
            spec.name,
            {
                "type": "image" if whole else "tuples",
                "format": "magnitude" if whole else "sequence",
                "modality": "n/a",
                "num_channels": len(channels),
                "spatial_shape": [size or "*" for size in spec.shape[2:]],
                "dtype": spec.dtype,
                "value_range": [0, 255] if spec.dtype == "uint8" else [],
                "is_patch_data": graph.is_patch,
                "channel_def": {str(place): name for place, name in enumerate(channels)},
            },
        )


def _outputs(manifest: Mapping[str, Any], graph: ScanGraph) -> Iterator[tuple[str, dict[str, Any]]]:
    names = scan_plan.regions_of(graph.networks)
    common = {
        "type": "image",
        "modality": "n/a",
        "spatial_shape": [size or "*" for size in graph.inputs[0].shape[2:]],
        "is_patch_data": graph.is_patch,
    }
    if not graph.is_patch:
        labels = {"0": "background", **manifest["output"]["labels"]}
        yield (
            LABELS,
            {
                **common,
                "format": "segmentation",
                "num_channels": 1,
                "dtype": "uint8",
                "value_range": [0, max(map(int, labels))],
                "channel_def": labels,
            },
        )
    yield (
        PROBABILITIES,
        {
            **common,
            "format": "classes",
            "num_channels": len(names),
            "dtype": "float32",
            "value_range": [0, 1],
            "channel_def": {str(place): name for place, name in enumerate(names)},
        },
    )

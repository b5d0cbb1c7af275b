"""Members of an ensemble: variants of runs whose probabilities are averaged case by case."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_medseg import recipe, registry
from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.store import StoredCase, reader_name
from keras_medseg.errors import DataError
from keras_medseg.files import read_bytes
from keras_medseg.inference.outputs import main_output
from keras_medseg.recipe import Patches, Recipe, Segments
from keras_medseg.runs.run_folder import RunFolder, Variant
from keras_medseg.tasks.base import Maps, Networks, Task
from keras_medseg.training import fit

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@dataclass(frozen=True)
class Member:
    """The networks of one variant of a run.

    Attributes:
        run: its folder.
        variant: name of the variant.
        chosen: the variant, perhaps with another overlap of its sliding window.
        precision: dtype policy of the networks, such as "mixed_bfloat16"; by default that in which
            they were trained.
    """

    run: RunFolder
    variant: str
    chosen: Variant
    precision: str = ""

    @property
    def name(self) -> str:
        """RUN:VARIANT, as on the command line."""
        return f"{self.run.path}:{self.variant}"

    @cached_property
    def task(self) -> Task:
        """The task of the variant."""
        return self.chosen.task

    @cached_property
    def networks(self) -> Networks:
        """The trained networks, loaded once.

        Raises:
            DataError: one of them is not completely trained.
        """
        networks = self.run.networks(self.variant)
        if not self.precision:
            return networks
        return {
            targets: in_precision(network, self.chosen.recipe, self.precision)
            for targets, network in networks.items()
        }

    @property
    def regions(self) -> tuple[str, ...]:
        """All regions that the networks predict."""
        return tuple(dict.fromkeys(self.task.regions))

    def identity(self) -> dict[str, Any]:
        """What probabilities depend on besides their case.

        Raises:
            DataError: a network is missing.
        """
        weights = {}
        for targets in self.chosen.recipe.model.targets:
            path = self.run.training(self.chosen.trained_as, targets) / "model.keras"
            content = read_bytes(path, expected="a trained network", remedy="Train first.")
            weights["+".join(targets)] = hashlib.sha256(content).hexdigest()
        chosen = self.chosen.recipe
        return {
            "run": str(self.run.path.resolve()),
            "variant": self.variant,
            "weights_sha256": weights,
            "options": {"data": asdict(chosen.data), "predict": asdict(chosen.predict)},
            "fitted": dict(self.chosen.fitted),
        }


def members(runs: Sequence[str | Path], variant: str | None = None) -> tuple[Member, ...]:
    """The members that arguments of the command line name.

    A run with folds or seeds has a member for each of its trainings; a variant that is an ensemble
    stands for its own members.

    Args:
        runs: each RUN, a run folder, or RUN:VARIANT. A folder whose own name has a colon is taken
            as it is.
        variant: of those without VARIANT; by default the first of each run.

    Raises:
        DataError: a folder has no run, or is damaged.
        ValueError: a run has no such variant.
    """
    found = []
    for text in runs:
        run, name = run_and_variant(str(text), variant)
        for part in run.parts:
            names = part.variant(name).members or (name,)
            found += [Member(part, one, part.variant(one)) for one in names]
    return tuple(found)


def run_and_variant(text: str, variant: str | None = None) -> tuple[RunFolder, str]:
    """The run folder and the variant that one argument names; otherwise as `members`."""
    path, colon, named = text.rpartition(":")
    if not colon or Path(text).exists():
        path, named = text, ""
    run = RunFolder(Path(path))
    return run, named or variant or run.run["variants"][0]


def with_overlap(all_members: Sequence[Member], overlap: float) -> tuple[Member, ...]:
    """The members with another overlap of the windows; those without a sliding window as they are.

    Raises:
        ValueError: none has a sliding window, or the overlap is out of range.
    """
    if not any(isinstance(member.chosen.recipe.data, Patches | Segments) for member in all_members):
        raise ValueError(
            f"--overlap: found {overlap:g} for {all_members[0].name}, whose networks see whole "
            "slices or images, expected a run with a sliding window. Leave it out."
        )
    return tuple(
        replace(member, chosen=_overlapping(member.chosen, overlap)) for member in all_members
    )


def _overlapping(chosen: Variant, overlap: float) -> Variant:
    if not isinstance(chosen.recipe.data, Patches | Segments):
        return chosen
    return replace(chosen, recipe=recipe.override(chosen.recipe, {"data.overlap": overlap}))


def in_precision(network: keras.Model, chosen: Recipe, policy: str) -> keras.Model:
    """A network of a recipe, with the same weights, that computes in another precision.

    Args:
        network: as `RunFolder.network` gives it.
        chosen: its recipe.
        policy: one of PRECISIONS.
    """
    with fit.precision(policy):
        built = registry.build(
            chosen.model.name,
            input_shape=network.input_shape[1:],
            classes=network.outputs[0].shape[-1],
            **chosen.model.options,
        )
    # Some tasks need the auxiliary outputs, see `Task.needs_auxiliary`.
    built = built if len(network.outputs) > 1 else main_output(built)
    built.set_weights(network.get_weights())
    return built


def require_alike(all_members: Sequence[Member]) -> None:
    """Refuse members whose probabilities cannot be averaged.

    Networks, sampling, voxel size, image size and channels may differ.

    Raises:
        ValueError: two members differ in the kind of data set, its channels, its labels, or the
            regions that they predict.
    """
    first = all_members[0]
    for other in all_members[1:]:
        for what, ours in _facts(first).items():
            theirs = _facts(other)[what]
            if theirs != ours:
                raise ValueError(
                    f"{other.name}: found {what} {_words(theirs)}, expected {_words(ours)} as of "
                    f"{first.name}. Average runs of one kind of data and the same regions."
                )


def _facts(member: Member) -> dict[str, Any]:
    """What all members share: whose cases they read, and what their maps mean."""
    dataset = member.task.dataset
    return {
        "the data set": member.chosen.recipe.data.dataset,
        "the channels": tuple(dataset.channels),
        "the regions": {name: dataset.regions[name] for name in sorted(member.regions)},
        "the labels": dict(dataset.labels),
        "the nesting": dict(dataset.nesting),
    }


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {item}" for key, item in value.items()) or "none"
    return ", ".join(value) or "none" if isinstance(value, tuple) else str(value)


@dataclass(frozen=True)
class Pooled:
    """The prediction of a case by all members.

    Attributes:
        case: as the first member reads it.
        maps: region -> mean of the members' probabilities. Of one member on the grid of its store,
            of several on the grid of the case's own files.
        expected_entropy: region -> mean of the members' entropies, as `maps`; empty if it was not
            asked for.
    """

    case: StoredCase
    maps: Maps
    expected_entropy: Maps


Decoded = Mapping[str, StoredCase]
"""A case as the members read it, by the name of the reader: members that read alike share one."""


def decode(
    all_members: Sequence[Member],
    case: Case,
    read: Callable[[Task], CaseArrays] | None = None,
) -> Decoded:
    """Read a case in the way of each member, equal ways once.

    Args:
        all_members: alike, see `require_alike`.
        case: to predict.
        read: gives the case as a member's task decodes it; by default from its files.

    Raises:
        DataError: the case cannot be read, or is gray where the networks expect color.
    """
    decoded: dict[str, StoredCase] = {}
    for member in all_members:
        reader = reader_name(member.task.reader)
        if reader not in decoded:
            arrays = read(member.task) if read else member.task.read_image(case)
            decoded[reader] = StoredCase.from_arrays(replace(case, labels=None), arrays)
        _require_channels(member, case, decoded[reader])
    return decoded


def pool(
    all_members: Sequence[Member],
    decoded: Decoded,
    *,
    flips: str | None = None,
    entropies: bool = False,
) -> Pooled:
    """Predict a case with all members, one after the other, and average their probabilities.

    Only the sums are kept, so the memory does not grow with the number of members, apart from
    their networks.

    Args:
        all_members: alike, see `require_alike`.
        decoded: the case, from `decode`.
        flips: as in `Task.probabilities`.
        entropies: whether the mean of the members' entropies is computed too.

    Raises:
        ValueError: a network's output is not finite.
    """
    sums: Maps = {}
    entropy_sums: Maps = {}
    for member in all_members:
        stored = decoded[reader_name(member.task.reader)]
        maps = member.task.probabilities(member.networks, stored, flips=flips)
        if len(all_members) > 1:
            maps = member.task.on_own_grid(maps, stored)
        for name in all_members[0].regions:
            _add(sums, name, maps[name])
            if entropies:
                _add(entropy_sums, name, entropy(maps[name]))
    count = np.float32(len(all_members))
    return Pooled(
        decoded[reader_name(all_members[0].task.reader)],
        {name: total / count for name, total in sums.items()},
        {name: total / count for name, total in entropy_sums.items()},
    )


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Entropy in bits of "belongs to the region or not": -p log2 p - (1-p) log2 (1-p), 0 to 1.

    Args:
        probabilities: of any shape, 0 to 1.

    Returns:
        float32 of that shape; 0 for the probabilities 0 and 1, and 1 for 1/2.
    """
    total = np.zeros(probabilities.shape, np.float32)
    for share in (probabilities, 1 - probabilities):
        inside = share > 0
        total[inside] -= share[inside] * np.log2(share[inside])
    return total


def _add(sums: Maps, name: str, values: np.ndarray) -> None:
    sums[name] = values if name not in sums else sums[name] + values


def _require_channels(member: Member, case: Case, stored: StoredCase) -> None:
    """Refuse a gray image where the networks were trained on color, and the other way round."""
    found = member.task.channels(stored.channels)
    for network in member.networks.values():
        wanted = network.input_shape[-1]
        if found != wanted:
            names = {1: "gray (1 channel)", 3: "color (3 channels)"}
            raise DataError(
                case.images[0] if case.images else case.id,
                found=names.get(found, f"{found} channels"),
                expected=f"{names.get(wanted, f'{wanted} channels')}, as this run was trained on",
                remedy="Convert it.",
            )

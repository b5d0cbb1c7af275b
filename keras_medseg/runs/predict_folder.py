"""Predict a folder of cases with the networks of a run, or of several."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from keras_medseg.cluster import Cluster
from keras_medseg.data.cases import Case
from keras_medseg.data.fractions import (
    DISAGREEMENT,
    ENTROPY,
    MAPS,
    PROBABILITIES,
    write_fractions,
)
from keras_medseg.errors import DataError, as_one, require_choice
from keras_medseg.files import is_file_name, locked, read_file, write_json
from keras_medseg.inference.outputs import THRESHOLD
from keras_medseg.progress import progress_bar
from keras_medseg.runs.members import (
    PRECISIONS,
    Member,
    Pooled,
    decode,
    entropy,
    members,
    pool,
    require_alike,
    with_overlap,
)
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.tasks.base import Maps, Task

T = TypeVar("T")
U = TypeVar("U")

RECORD = "predictions.json"
"""Beside the label maps: by which runs, variants, weights and options they were made."""

_REMEDY = "Choose another folder, or give --overwrite to predict the cases again."


@dataclass(frozen=True)
class Options:
    """How the cases of a folder are predicted; the default is what the recipe of the run says.

    Attributes:
        flips: axes along which inputs are mirrored, such as "xy"; see `Task.probabilities`.
        threshold: a voxel or pixel belongs to a region where its mean probability is above it.
        overlap: of the sliding window, 0 to below 1.
        probabilities: whether the mean probabilities are written too.
        uncertainty: whether entropy and disagreement are written too, see `_asked_maps`.
        precision: dtype policy of all networks, one of `members.PRECISIONS`; None is that in which
            each was trained.
    """

    flips: str | None = None
    threshold: float = THRESHOLD
    overlap: float | None = None
    probabilities: bool = False
    uncertainty: bool = False
    precision: str | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the option.
        """
        if not 0 < self.threshold < 1:
            found = f"--threshold: found {self.threshold:g}, expected a probability between 0 and 1"
            raise ValueError(f"{found}, such as 0.5.")
        flips = self.flips or ""
        if len(set(flips)) < len(flips) or set(flips) - set("xyz"):
            raise ValueError(f"--flips: found {flips!r}, expected axes such as x, xy or xyz.")
        if self.precision is not None:
            require_choice("--precision", self.precision, PRECISIONS)


class Part(NamedTuple):
    """The part `number` of `total` of the cases; counted from 1."""

    number: int
    total: int

    @classmethod
    def parse(cls, text: str) -> "Part":
        """The part that "3/16" names.

        Raises:
            ValueError: the text is something else.
        """
        number, slash, total = text.partition("/")
        if slash and number.isdecimal() and total.isdecimal():
            part = cls(int(number), int(total))
            if 1 <= part.number <= part.total:
                return part
        raise ValueError(f"--part: found {text!r}, expected K/N with K from 1 to N, such as 3/16.")

    def of(self, items: Sequence[Any]) -> list[Any]:
        """Every `total`-th item from the `number`-th on: all parts together are `items`."""
        return list(items[self.number - 1 :: self.total])


WHOLE = Part(1, 1)


def predict_with(
    all_members: Sequence[Member],
    folder: Path,
    out: Path,
    options: Options = Options(),
    *,
    part: Part = WHOLE,
    overwrite: bool = False,
    cluster: Cluster | None = None,
) -> str:
    """Write a label map for every case of `folder`; annotations are neither needed nor scored.

    Probabilities of several members are averaged. The first member gives the data set that finds
    the cases, the order of the regions, and the postprocessing.

    Existing label maps are kept, so an interrupted command can be repeated: the label map of a case
    is its last file. A case that cannot be read, or lacks a file, does not stop the prediction of
    the others.

    Args:
        all_members: from `members`.
        folder: of the cases.
        out: folder of the label maps, `<case>.nii.gz` or `<case>.png`, and of `predictions.json`.
        options: how they are predicted.
        part: predicts these cases alone. Parts may run at the same time into one folder.
        overwrite: whether existing label maps are predicted again.
        cluster: has a task for each case; without it, one case after the other.

    Returns:
        One line: the number of label maps, their regions, and by what they were made.

    Raises:
        DataError: a run is incomplete or damaged; `out` holds label maps of other members or
            options; or, after all other cases, some cases cannot be read.
        ValueError: members or options that do not go together.
    """
    _refuse_run(folder)
    all_members = prepared(all_members, options)
    if overwrite and part.total > 1:
        raise ValueError(
            "--part: found --overwrite beside it, expected one of the two: parts that run at the "
            "same time would delete each other's label maps. Choose another folder."
        )
    dataset = all_members[0].task.dataset
    listing, incomplete = dataset.find_complete(folder)
    names = [f"{case.id}{dataset.suffix}" for case in listing.cases]
    identity = _identity(all_members, options)
    with nullcontext() if part.total == 1 else locked(out, "starts to predict into this folder"):
        _claim(out, identity, names, overwrite)
    cases, incomplete = part.of(listing.cases), part.of(incomplete)
    predict = _predict_cases if cluster is None else partial(_predict_on, cluster)
    refused = incomplete + predict(all_members, cases, out, options)
    if refused:
        raise _incomplete(out, refused, len(cases) + len(incomplete))
    return _summary(all_members, out, len(cases), part)


def _incomplete(out: Path, refused: Sequence[DataError], total: int) -> DataError:
    return as_one(
        out,
        refused,
        found=f"{total - len(refused)} of {total} label maps",
        expected="one for every case",
        remedy="Mend these and give the same command again; it does what is left:",
    )


def prepared(all_members: Sequence[Member], options: Options) -> Sequence[Member]:
    """The members with the options that change them, after all checks that need no case.

    Raises:
        DataError: a network is missing or damaged.
        ValueError: members or options that do not go together.
    """
    require_alike(all_members)
    if options.overlap is not None:
        all_members = with_overlap(all_members, options.overlap)
    if options.precision is not None:
        all_members = [replace(member, precision=options.precision) for member in all_members]
    for member in all_members:
        if odd := set(options.flips or "") - set(member.task.axes):
            found = f"--flips: found {', '.join(sorted(odd))}"
            raise ValueError(f"{found}, expected axes of {member.task.axes} for {member.name}.")
        _ = member.networks
    if options.probabilities or options.uncertainty:
        for name in all_members[0].regions:
            if not is_file_name(name):
                found = f"--probabilities, --uncertainty: found a region called {name!r}"
                raise ValueError(f"{found}, expected a name that a folder can have.")
    return all_members


def _refuse_run(folder: Path) -> None:
    """Refuse the folder of a run in the place of the cases: RUN RUN CASES without OUT."""
    if RunFolder(folder).provenance_file.exists():
        raise DataError(
            folder,
            found="the folder of a run",
            expected="the folder of the cases",
            remedy="Give RUN ... CASES OUT, in this order.",
        )


def _summary(all_members: Sequence[Member], out: Path, count: int, part: Part) -> str:
    first = all_members[0]
    regions = ", ".join("+".join(names) for names in first.chosen.recipe.model.targets)
    made_by = f"the variant {first.variant}"
    if len(all_members) > 1:
        made_by = f"the mean of {len(all_members)} members"
    of = "" if part.total == 1 else f" (part {part.number} of {part.total})"
    return f"{out}: {count} label maps of {regions} by {made_by}{of}"


def _predict_cases(
    all_members: Sequence[Member], cases: Sequence[Case], out: Path, options: Options
) -> list[DataError]:
    """Predict what has no label map yet; the errors of the cases that cannot be read.

    Beside the networks one thread reads the next case, and one writes the case before, so that
    memory holds three cases, however many there are.
    """
    suffix = all_members[0].task.dataset.suffix
    todo = [case for case in cases if not (out / f"{case.id}{suffix}").exists()]
    disagreement = options.uncertainty and len(all_members) > 1
    refused: list[DataError] = []
    with (
        progress_bar("predicting") as progress,
        ThreadPoolExecutor(1) as reader,
        ThreadPoolExecutor(1) as writer,
    ):
        writing: Future[None] | None = None
        read = _ahead(reader, partial(decode, all_members), todo)
        for number, (case, decoded) in enumerate(read, 1 + len(cases) - len(todo)):
            if error := _error_of(decoded):
                refused.append(error)
            else:
                maps = pool(
                    all_members, decoded.result(), flips=options.flips, entropies=disagreement
                )
                refused += filter(None, [_error_of(writing)])
                writing = writer.submit(_write_case, all_members[0].task, maps, out, options)
            progress(number, len(cases), case.id)
        refused += filter(None, [_error_of(writing)])
    return refused


def _ahead(
    reader: Executor, read: Callable[[T], U], items: Sequence[T]
) -> Iterator[tuple[T, Future[U]]]:
    """Each item with what `reader` has read or reads of it, and the next one read ahead."""
    futures = [reader.submit(read, item) for item in items[:1]]
    for number, item in enumerate(items, 1):
        futures += [reader.submit(read, following) for following in items[number : number + 1]]
        yield item, futures.pop(0)


def _error_of(future: Future | None) -> DataError | None:
    """Wait for a read or written case: what is wrong with it, if anything."""
    error = future.exception() if future else None
    if error is None or isinstance(error, DataError):
        return error
    raise error


def _predict_on(
    cluster: Cluster,
    all_members: Sequence[Member],
    cases: Sequence[Case],
    out: Path,
    options: Options,
) -> list[DataError]:
    """As `_predict_cases`, in tasks."""
    names = tuple(f"{member.run.path.resolve()}:{member.variant}" for member in all_members)
    suffix = all_members[0].task.dataset.suffix
    left = [case for case in cases if not (out / f"{case.id}{suffix}").exists()]
    predict = partial(_predict_task, names=names, out=out.resolve(), options=options)
    refused: list[DataError] = []
    with (
        progress_bar("predicting") as progress,
        closing(cluster.results(predict, left, networks=True)) as results,
    ):
        for number, (case, result) in enumerate(results, 1):
            if isinstance(result, DataError):
                refused.append(result)
            elif isinstance(result, Exception):
                raise result
            progress(number, len(left), case.id)
    return refused


def _predict_task(case: Case, *, names: tuple[str, ...], out: Path, options: Options) -> None:
    for error in _predict_cases(_opened(names, options), [case], out, options):
        raise error


@lru_cache(maxsize=1)
def _opened(names: tuple[str, ...], options: Options) -> Sequence[Member]:
    """The members of a worker's tasks, whose networks are loaded once."""
    return prepared(members(names), options)


def _write_case(task: Task, pooled: Pooled, out: Path, options: Options) -> None:
    """Write the label map of a case, and before it the maps that are asked for."""
    stored = pooled.case
    labels = task.label_map(pooled.maps, stored, threshold=options.threshold)
    name = f"{stored.id}{task.dataset.suffix}"
    if options.probabilities or options.uncertainty:
        means = task.on_own_grid(pooled.maps, stored)
        for kind, maps in _asked_maps(means, pooled.expected_entropy, options).items():
            for region, values in maps.items():
                write_fractions(out / kind / region / name, values, stored)
    task.dataset.write_labels(out / name, labels, stored)  # the last: it says that all are there


def _asked_maps(means: Maps, expected_entropy: Maps, options: Options) -> dict[str, Maps]:
    """The maps that are written beside a label map, {one of MAPS: region -> map}.

    Entropy is that of the mean probability, in bits. Disagreement is that entropy less the mean of
    the members' own entropies: the mean Kullback-Leibler divergence of a member from the ensemble
    (Lakshminarayanan et al. 2017, "disagreement"), which is the mutual information of region and
    member. It is 0 where all members give the same probability, and 1 where half of them are sure
    of the region and half of the contrary. One member has none.
    """
    asked = {PROBABILITIES: means} if options.probabilities else {}
    if options.uncertainty:
        asked[ENTROPY] = {name: entropy(values) for name, values in means.items()}
    if expected_entropy:
        asked[DISAGREEMENT] = {
            name: asked[ENTROPY][name] - values for name, values in expected_entropy.items()
        }
    return asked


def _identity(all_members: Sequence[Member], options: Options) -> dict[str, Any]:
    """What label maps depend on besides their case, as JSON holds it."""
    first, *others = (member.identity() for member in all_members)
    identity = {**first, "further_members": others, "asked": asdict(options)}
    return json.loads(json.dumps(identity))


def _claim(out: Path, identity: Mapping[str, Any], names: Sequence[str], overwrite: bool) -> None:
    """Make `out` the folder of these predictions, or refuse one that holds others.

    Raises:
        DataError: label maps that were made in another way, or whose making is not known.
    """
    record = out / RECORD
    known: list[str] = []
    if record.exists():
        earlier = read_file(record, _parse_record, "Delete it with the label maps beside it.")
        known = earlier.get("cases", [])
        then = _compared(earlier)
        for field, asked in _compared(identity).items():
            if overwrite or then.get(field) == asked:
                continue
            found = f"label maps of the run {earlier.get('run')}, with another {field}"
            expected = f"those of {identity['run']}, variant {identity['variant']}"
            if field.startswith("--"):
                found, expected = f"label maps with {field} {then.get(field)}", f"{field} {asked}"
            raise DataError(out, found=found, expected=expected, remedy=_REMEDY)
    elif not overwrite and (there := [name for name in names if (out / name).exists()]):
        found = f"{there[0]} and no {RECORD} that says how it was made"
        raise DataError(out, found=found, expected="a folder of its own", remedy=_REMEDY)
    if overwrite:
        for name in {*names, *known}:  # the old ones go first, so that none passes for a new one
            for place in (out, *(place for kind in MAPS for place in (out / kind).glob("*/"))):
                (place / name).unlink(missing_ok=True)
        known = []
    write_json(record, {**identity, "cases": sorted({*known, *names})})


def _compared(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The fields in which label maps of one folder agree; the folders of runs may move.

    What was asked for is called as on the command line: --flips, --threshold.
    """
    further = [
        {field: value for field, value in member.items() if field != "run"}
        for member in identity.get("further_members", ())
    ]
    left_out = "run", "cases", "asked"
    kept = {field: value for field, value in identity.items() if field not in left_out}
    asked = {f"--{name}": value for name, value in identity["asked"].items()}
    return {**kept, **asked, "further_members": further}


def _parse_record(text: str) -> dict[str, Any]:
    """The record; its names are those of files that may be deleted, so they must stay inside."""
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError(f"{type(record).__name__}, not an object")
    names = record.get("cases", [])
    if not isinstance(names, list) or not all(map(is_file_name, names)):
        raise ValueError(f"cases = {names!r}")
    # Records from before there were ensembles have one member and no further options.
    record = {"further_members": [], "asked": asdict(Options()), **record}
    further = record["further_members"]
    if not isinstance(further, list) or not all(isinstance(member, dict) for member in further):
        raise ValueError(f"further_members = {further!r}")
    if not isinstance(record["asked"], dict):
        raise ValueError(f"asked = {record['asked']!r}")
    return record

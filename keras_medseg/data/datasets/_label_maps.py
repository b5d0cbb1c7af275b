"""Label maps without their images: all that scoring needs.

The codes are those on disk. A map's id is its path without ending and without a word such as `seg`
behind it: BraTS-GLI-00000-000/BraTS-GLI-00000-000-seg.nii.gz is BraTS-GLI-00000-000. Where some
files have such a word, those without it are images and left out.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from keras_medseg.data import checks
from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.datasets.base import Codes, Dataset, Listing
from keras_medseg.data.datasets.image_folders import ImageFolders, ImageWarning
from keras_medseg.data.datasets.volume_folders import VolumeFolders
from keras_medseg.data.formats import description, foreign, image_files, masks
from keras_medseg.data.store import StoredCase
from keras_medseg.errors import DataError

_DEPTH = 2
_ENDINGS = (*foreign.NIFTI, *image_files.SUFFIXES)
_WORD = re.compile(
    r"[-_. ](seg|segmentation|label|labels|mask|gt|gtv|truth|annotation)$", re.IGNORECASE
)


@dataclass(frozen=True, eq=False)
class LabelVolumes(VolumeFolders):
    """Label maps in NIfTI; `label_codes` and `region_codes` say what they hold."""

    def find(self, folder: Path, *, labelled: bool = True) -> Listing:
        """All label maps of `folder`, and up to two levels below it.

        Raises:
            DataError: none, or two of one name.
        """
        return Listing(_cases(folder, foreign.NIFTI))

    def read_image(self, case: Case) -> CaseArrays:
        """There is none.

        Raises:
            DataError: always.
        """
        raise _no_image(case)


@dataclass(frozen=True, eq=False)
class LabelImages(ImageFolders):
    """Masks in PNG and other image formats.

    Attributes:
        region_codes: what is scored: name -> gray values; by default each class by itself. A single
            class is everything but 0.
    """

    region_codes: Mapping[str, Codes] = field(default_factory=dict)

    @property
    def labels(self) -> Mapping[int, str]:
        """The classes by their gray values; a single one, or "object", as 1."""
        if len(self.classes) > 1:
            return {int(codes[0]): name for name, codes in self.classes.items()}
        return {1: next(iter(self.classes), "object")}

    @property
    def regions(self) -> Mapping[str, Codes]:
        """The regions that are given, otherwise each class by itself."""
        if self.region_codes and len(self.classes) > 1:
            return dict(self.region_codes)
        names = list(self.region_codes) or list(self.labels.values())
        return {name: (code,) for code, name in zip(self.labels, names)}

    def find(self, folder: Path, *, labelled: bool = True) -> Listing:
        """All masks of `folder`, and up to two levels below it.

        Raises:
            DataError: none, or two of one name.
        """
        return Listing(_cases(folder, tuple(image_files.SUFFIXES)))

    def read_labels(self, path: Path, case: Case | StoredCase) -> np.ndarray:
        """A mask -> (H, W, 1) uint8 codes.

        Raises:
            DataError: a damaged mask, another size than the annotation's, or unknown gray values.

        Warns:
            ImageWarning: the mask is unusual but usable.
        """
        assert isinstance(case, Case), case
        assert case.labels is not None, case.id
        mask, annotation = image_files.read_mask(path), image_files.read_mask(case.labels)
        pixels, expected = mask.pixels[..., 0], annotation.pixels.shape[:2]
        if pixels.shape != expected:
            raise DataError(
                path,
                found="{} x {} pixels".format(*pixels.shape),
                expected="{} x {}, those of {}".format(*expected, case.labels.name),
                remedy="Predict at the image's own size.",
            )
        remarks = list(mask.remarks)
        if len(self.labels) == 1:
            pixels, remark = masks.labels_of_object(pixels, path)
            remarks += [remark] if remark else []
        for text in remarks:
            warnings.warn(text, ImageWarning, stacklevel=2)
        unknown = np.setdiff1d(pixels, [0, *self.labels])
        if unknown.size:
            raise DataError(
                path,
                found=f"gray values {', '.join(map(str, unknown[:5]))}",
                expected=f"0 and {', '.join(map(str, sorted(self.labels)))}",
                remedy="Name their classes (--labels), or mend the mask.",
            )
        return pixels[..., None]

    def read_annotation(self, case: Case) -> tuple[np.ndarray, tuple[float, float, float]]:
        """The mask, and 1 pixel as its spacing."""
        assert case.labels is not None, case.id
        return self.read_labels(case.labels, case), (1.0, 1.0, 1.0)

    def read_image(self, case: Case) -> CaseArrays:
        """There is none.

        Raises:
            DataError: always.
        """
        raise _no_image(case)


def label_maps(folder: Path, labels: Mapping[int, str], regions: Mapping[str, Codes]) -> Dataset:
    """The data set of a folder of label maps.

    Args:
        folder: of the maps. Volumes without labels and regions must be described by the
            dataset.json of nnU-Net above the folder; images without them are masks of one object.
        labels: code on disk -> its name.
        regions: what is scored: name -> codes. Without `labels` a code is called "label <code>".

    Raises:
        DataError: nothing says what the label maps hold.
        ValueError: a region of codes that `labels` does not have.
    """
    if not labels and not regions and (home := described_by(folder)) is not None:
        found = description.read_description(home)
        return LabelVolumes(label_codes=found.label_codes, region_codes=found.region_codes)
    codes = sorted({code for listed in regions.values() for code in listed})
    named = dict(labels) or {code: f"label {code}" for code in codes}
    if not named.keys() >= {*codes}:
        found_codes = ", ".join(str(code) for code in codes if code not in named)
        raise ValueError(f"--regions: found the codes {found_codes}, expected those of --labels.")
    if not holds(folder, foreign.NIFTI):
        classes: dict[str, masks.Codes] = {name: (code,) for code, name in named.items()}
        return LabelImages(classes=classes, region_codes=dict(regions))
    if not named:
        raise DataError(
            folder,
            found="label maps of which nothing says what they hold",
            expected="a data set that is known, or the names of labels or regions",
            remedy="Give --labels 1=necrosis,2=edema or --regions WT=1,2 TC=1.",
        )
    return LabelVolumes(
        label_codes={name: code for code, name in named.items()},
        region_codes=dict(regions) or {name: (code,) for code, name in named.items()},
    )


def holds(folder: Path, endings: Sequence[str] = _ENDINGS) -> bool:
    """Whether files with one of the endings lie in a folder, or up to two levels below it."""
    with checks.readable_folders():
        files = checks.files_below(folder, _DEPTH)
    return any(foreign.ending(path.name) in endings for path in files)


def masks_alone(folder: Path) -> bool:
    """Whether a folder has masks by their names, such as ISIC_0000001_segmentation.png, alone."""
    with checks.readable_folders():
        files = checks.files_below(folder, _DEPTH)
    maps = [path for path in files if foreign.ending(path.name) in _ENDINGS]
    return bool(maps) and all(
        foreign.ending(path.name) in image_files.SUFFIXES
        and _WORD.search(foreign.without_ending(path.name))
        for path in maps
    )


def described_by(folder: Path) -> Path | None:
    """The folder whose dataset.json describes the label maps in `folder`: the one above it."""
    above = folder.absolute().parent
    inside = (folder / description.DATASET_JSON).is_file()
    return above if (above / description.DATASET_JSON).is_file() and not inside else None


def _cases(folder: Path, endings: Sequence[str]) -> list[Case]:
    """The label maps with one of the endings, as cases without images, sorted by id."""
    checks.require_folder(
        folder, expected="a folder with label maps", remedy="Give the folder of the annotations."
    )
    with checks.readable_folders():
        files = checks.files_below(folder, _DEPTH)
    maps = [path for path in files if foreign.ending(path.name) in endings]
    marked = [path for path in maps if _WORD.search(foreign.without_ending(path.name))]
    cases: dict[str, Case] = {}
    for path in marked or maps:
        id = _WORD.sub("", foreign.without_ending(path.name))
        if id.casefold() in ("seg", "mask", "label", "gt") and path.parent != folder:
            id = path.parent.name
        if id in cases:
            raise DataError(
                path,
                found=f"a second label map of {id}, beside {cases[id].labels}",
                expected="one",
                remedy="Move one of them elsewhere.",
            )
        cases[id] = Case(id, folder.name, (), path, id)
    if not cases:
        remedy = foreign.remedies(files) if files else "Give the folder of the annotations."
        counted = foreign.counted(files) if files else "no files"
        expected = f"label maps ({', '.join(endings)})"
        raise DataError(folder, found=counted, expected=expected, remedy=remedy)
    return [cases[id] for id in sorted(cases)]


def _no_image(case: Case) -> DataError:
    text = "a label map alone"
    return DataError(case.id, found=text, expected="an image", remedy="Give the whole data set.")

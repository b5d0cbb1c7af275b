"""Image data sets, recognized from their folders and names; strict reading of their cases.

CVC-ClinicDB, Kvasir-SEG, ETIS-LaribPolypDB, CVC-ColonDB, CVC-300, the published polyp benchmark of
these five, ISIC 2016 to 2018 Task 1, HAM10000, PH2, any `images/` beside `masks/` with equal names
(the mask's may end in _mask or _segmentation), in one folder or in folders named train, val and
test, and any images listed in a `manifest.csv` with the columns image, mask and, optionally, group
and split; its paths are relative to its own folder and stay below it. _image_layouts.py has the
layouts. A `classes.json` beside them declares classes and their codes or colors.

The table in image_files.py says which single files are accepted. Beyond that:

| found | verdict |
|---|---|
| image without mask, mask without image | error; sets without any mask may be left out |
| two files for one case, or names that differ only in upper and lower case | error |
| image and mask of different sizes | error |
| EXIF orientation | rotated, with a warning; not if only the unrotated image fits its mask |
| gray image in a data set that is in color; gray beside color images in one folder | error |
| image with a single value | error |
| mask that is not binary | see the table in masks.py; no warning in CVC-ClinicDB and Kvasir-SEG |
| mask without any object, or of the object alone | warning |
| mask with codes of other classes only | no warning |
| other files in the folders | warning; texts, tables and masks of other tasks are ignored |
| frame in no sequence of README.txt, or in two | error |
| CVC-ClinicDB without README.txt, or without its table | the original table of 612 frames is used |
| frames that README.txt lists but that are missing | warning |
| manifest with other columns, separators or encoding, or without rows | error |
| manifest row with missing fields or files, or an unknown split | error |
| one group of a manifest on both sides of its split | error |
| manifest row that leads out of the manifest's folder | error |
| equal pixels under two names, or on several sides of a split | warning |
| HAM10000 without its table of lesions | warning |
| classes.json that is no object of names and codes | error |
"""

import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from keras_medseg.data import checks
from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.checks import CheckReport, Inspection, Problem, Progress, Reading
from keras_medseg.data.datasets import _image_layouts as layouts
from keras_medseg.data.datasets.base import Codes, Dataset, Listing
from keras_medseg.data.formats import image_files, masks
from keras_medseg.data.formats.manifest import TEST, TRAINING, VALIDATION
from keras_medseg.data.store import StoredCase
from keras_medseg.errors import DataError
from keras_medseg.files import read_file


class ImageWarning(UserWarning):
    """An image or mask that can be used but is unusual."""


@dataclass(frozen=True, eq=False)
class ImageFolders(Dataset):
    """Two-dimensional images with masks: polyps, skin, images beside masks, or a manifest.

    Attributes:
        classes: name -> gray codes of 0 to 255 in the masks, or colors such as "#ff0000". The first
            class becomes label 1, and so on; the codes of "background" become 0, as black always
            does. A class without codes (only if it is the single one) is everything that is not
            background.
    """

    suffix: ClassVar[str] = ".png"
    elements: ClassVar[str] = "pixels"
    metrics: ClassVar[tuple[str, ...]] = (
        "dice",
        "iou",
        "precision",
        "sensitivity",
        "specificity",
        "hd95_px",
    )

    classes: Mapping[str, masks.Codes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        classes = {name: tuple(codes) for name, codes in self.classes.items()}
        object.__setattr__(self, "classes", classes)
        if self._table is None and len(self.labels) > 1:
            raise ValueError(f"classes: found {classes}, expected gray codes for each of several.")

    # The order of the classes matters, but mappings compare equal in any order.

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImageFolders) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[tuple[str, masks.Codes], ...]:
        return tuple(self.classes.items())

    @property
    def _table(self) -> masks.CodeTable | None:
        """The label of every code or color; None if the classes have no codes."""
        return masks.code_table(self.classes) if any(self.classes.values()) else None

    @property
    def labels(self) -> Mapping[int, str]:
        """The classes without the background, or "object" if none is named."""
        names = [name for name in self.classes if name != masks.BACKGROUND] or ["object"]
        return dict(enumerate(names, 1))

    @property
    def regions(self) -> Mapping[str, Codes]:
        """Each class by itself."""
        return {name: (code,) for code, name in self.labels.items()}

    @classmethod
    def recognizes(cls, folder: Path) -> bool:
        """Whether `folder` is or contains a manifest, or contains images in a known layout."""
        return layouts.recognizes(folder)

    @classmethod
    def layout_examples(cls) -> list[str]:
        """The files of each layout."""
        return layouts.examples(layouts.TREES)

    @classmethod
    def options_of(cls, folder: Path, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """The classes that `classes.json` in the folder declares, unless some are given.

        Raises:
            DataError: the file is no object of names and codes.
        """
        path = layouts.file_named(folder, layouts.CLASSES)
        if path is None or "classes" in chosen:
            return {}
        return {"classes": read_file(path, _parse_classes, f"Write it as {_CLASSES_EXAMPLE}.")}

    def find(self, folder: Path, *, labelled: bool = True) -> Listing:
        """All cases below `folder`, sorted by data set and id; numbers in ids sort as numbers.

        A case's group is its sequence in CVC-ClinicDB (29 sequences of 25 videos; which of them
        share a video is not published), the manifest's group, and otherwise the image itself.

        Args:
            folder: of the data set, or the path of a manifest.
            labelled: leave out image sets without masks, and raise an error for an image without a
                mask if other images of its folder have one.

        Returns:
            The cases, and their sides if the column split of a manifest or the layout of the
                folders (train, val, test, or the polyp benchmark's) says them.

        Raises:
            DataError: nothing is recognized (the message shows the expected tree beside the one
                found), more than one data set, or an error in the module's table.

        Warns:
            ImageWarning: files among the images that are not read.
        """
        scan = layouts.scan_folder(folder)
        errors = [*scan.errors, *chain.from_iterable(map(layouts.file_errors, scan.found))]
        checks.raise_first(folder, errors)
        _require_images(scan)
        cases = [found.case for found in scan.found]
        if labelled:
            cases = _labelled(folder, cases)
        sides = {case.id: scan.sides[case.id] for case in cases if case.id in scan.sides}
        return Listing(cases, sides)

    def find_complete(self, folder: Path) -> tuple[Listing, list[DataError]]:
        """The images, with or without masks, and the errors of the cases without one image."""
        scan = layouts.scan_folder(folder)
        checks.raise_first(folder, scan.errors)
        _require_images(scan)
        for found in scan.found:
            found.mask_expected = False
        errors = [layouts.file_errors(found) for found in scan.found]
        complete = [found.case for found, wrong in zip(scan.found, errors) if not wrong]
        return Listing(complete), [*chain.from_iterable(errors)]

    def read(self, case: Case) -> CaseArrays:
        """Read one image and its mask as a volume with one slice: x are rows, y columns.

        Returns:
            image (H, W, 1, C) uint8, C 1 or 3; labels (H, W, 1) uint8 or None.

        Raises:
            DataError: a file that image_files.py refuses, or an error in the module's table.

        Warns:
            ImageWarning: a warning in the module's table.
        """
        return _read(case, self._table).result(ImageWarning)

    def check(
        self, folder: Path, *, workers: int | None = None, progress: Progress | None = None
    ) -> CheckReport:
        """Find all problems of all cases below `folder` in one go; every file is read to its end.

        Args:
            folder: as in `find`.
            workers: images read at once; by default one per core, at most 8.
            progress: called with (done, total, case id) after each case.

        Raises:
            DataError: `folder` does not exist.
        """
        scan = layouts.scan_folder(folder)
        problems = [checks.error_of("-", error) for error in scan.errors]
        problems += [Problem("-", path, text, "warning") for path, text in scan.remarks]
        complete = []
        for found in scan.found:
            errors = layouts.file_errors(found)
            problems += [checks.error_of(found.id, error) for error in errors]
            if not errors:
                complete.append(found.case)
        channels: dict[str, int] = {}
        pixels: dict[bytes, list[Case]] = defaultdict(list)
        inspect = partial(_inspect, table=self._table, channels=channels, pixels=pixels)
        problems += checks.inspect_all(
            complete, inspect, elements=self.elements, workers=workers, progress=progress
        )
        problems += _channel_problems(complete, channels)
        problems += _on_several_sides(pixels, scan.sides)
        if not scan.found and not scan.errors:
            problems.append(checks.error_of("-", layouts.nothing_found(scan)))
        return CheckReport(scan.folder, complete, problems, layouts.trees(scan))

    def read_labels(self, path: Path, case: Case | StoredCase) -> np.ndarray:
        """A mask as `write_labels` writes it -> (H, W, 1) uint8 labels.

        A mask of one class is read by the rule of annotations (masks.py): 0 and one other value, or
        gray edges, which are cut at 127 with a warning. Several classes are numbered.

        Args:
            path: the mask, in PNG or another image format.
            case: gives the size that the mask must have: for a `Case` that of its files, for a
                `StoredCase` that of the decoded image.

        Raises:
            DataError: the mask is missing or damaged, has another size, or codes that are no
                labels.

        Warns:
            ImageWarning: the mask is unusual but usable.
        """
        mask = image_files.read_mask(path)
        codes = image_files.upright(mask.pixels, mask.orientation)
        size, orientation = self._frame(case)
        if codes.shape[:2] == size[::-1] != size and orientation in image_files.SIDEWAYS:
            text = (
                f"{path}: found the pixels of {case.id} turned by its EXIF orientation, expected "
            )
            warnings.warn(f"{text}them as its mask has them. Turned back.", ImageWarning, 2)
            codes = image_files.upright(codes, orientation)
        if codes.shape[:2] != size:
            name = case.id if isinstance(case, StoredCase) else case.images[0].name
            raise DataError(
                path,
                found=f"{codes.shape[0]} x {codes.shape[1]} pixels",
                expected=f"{size[0]} x {size[1]}, those of {name}",
                remedy="Predict at the image's own size.",
            )
        labels, remark = self._predicted(codes, mask)
        for text in (*mask.remarks, *([remark] if remark else [])):
            warnings.warn(text, ImageWarning, stacklevel=2)
        return labels

    def _predicted(self, codes: np.ndarray, mask: image_files.Raster) -> tuple[np.ndarray, str]:
        """Labels of a predicted mask's codes, and what is odd about them."""
        names, count = ", ".join(self.labels.values()), len(self.labels)
        if count == 1:
            try:
                return masks.labels_of_object(codes, mask.path)
            except DataError as error:
                remedy = f"Save a mask of {names} alone, 0 and 255; cut probabilities first."
                raise checks.with_remedy(error, remedy) from error
        found = f"gray code {codes.max()}" if codes.max() > count else ""
        found = "JPEG, which changes the classes' numbers" if mask.lossy else found
        if found:
            expected = f"0 to {count}" + (", unchanged" if mask.lossy else "")
            remedy = f"Number the classes in this order, as PNG: {names}."
            raise DataError(mask.path, found=found, expected=expected, remedy=remedy)
        return codes, ""

    def _frame(self, case: Case | StoredCase) -> tuple[tuple[int, int], int]:
        """(rows, columns) of a case, and the EXIF orientation that leads to it from the other way.

        That is the image's own where `read` turns the image, and its inverse where `read` leaves
        the image as it is stored.
        """
        if isinstance(case, StoredCase):
            return (case.full_shape[0], case.full_shape[1]), 1
        reading = _read(case, self._table)
        if reading.arrays is None:
            raise reading.errors[0]
        rows, columns = reading.arrays.image.shape[:2]
        image = image_files.read_image(case.images[0])
        as_stored = image.pixels.shape[:2] == (rows, columns)
        inverse = {6: 8, 8: 6}.get(image.orientation, image.orientation)
        return (rows, columns), inverse if as_stored else image.orientation

    def read_image(self, case: Case) -> CaseArrays:
        """As `read`, without the labels; a sound mask says which way up its image is."""
        reading = _read(case, self._table)
        if reading.arrays is None:  # perhaps because of its mask
            return self.read(replace(case, labels=None))
        for path, remark in reading.remarks:
            if path == case.images[0]:
                warnings.warn(remark, ImageWarning, stacklevel=2)
        return replace(reading.arrays, labels=None)

    def of_array(self, image: np.ndarray, affine: np.ndarray) -> CaseArrays:
        """An image in memory, (H, W) or (H, W, 1) gray, or (H, W, 3) color, uint8.

        Raises:
            ValueError: another shape or type.
        """
        pixels = image[..., None] if image.ndim == 2 else image
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
            raise ValueError(
                f"image: found {image.dtype} of shape {image.shape}, expected uint8 (H, W), "
                "(H, W, 1) or (H, W, 3)."
            )
        return CaseArrays(pixels[:, :, None], None, np.eye(4), ("L", "P", "S"))

    def codes_on_disk(self, labels: np.ndarray, dataset: str) -> np.ndarray:
        """A single class as 255, several numbered."""
        return labels * np.uint8(255) if len(self.labels) == 1 else labels

    def write_labels(self, path: Path, labels: np.ndarray, case: StoredCase) -> None:
        """Write (H, W, 1) uint8 labels as 8-bit gray: a single class as 255, several unchanged.

        Args:
            path: ends in .png, which is lossless.
            labels: on the grid of the decoded case, or of the image that it was decoded from.
            case: the case that was labelled.

        Raises:
            ValueError: the labels have another size.
        """
        # A stored image may have been resized; `own` is the size of its file.
        decoded = tuple(case.full_shape)
        own = tuple(case.source_shape)
        if labels.shape not in (decoded, own):
            sizes = f"{decoded}" if own == decoded else f"{decoded} or {own}"
            raise ValueError(
                f"labels: found shape {labels.shape}, expected {sizes}, that of {case.id}."
            )
        image_files.write(path, self.codes_on_disk(labels, case.dataset))


# What lies on disk

_CLASSES_EXAMPLE = '{"polyp": [255], "background": [128]} or {"polyp": ["#ff0000"]}'


def _parse_classes(text: str) -> dict[str, masks.Codes]:
    content = json.loads(text)
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{content!r}")
    listed = {
        name: tuple(codes) if isinstance(codes, list) else (codes,)
        for name, codes in content.items()
    }
    masks.code_table(listed)
    return listed


def _labelled(folder: Path, cases: Sequence[Case]) -> list[Case]:
    """The cases with masks.

    Raises:
        DataError: there are none; of HAM10000 with the name of the file that has them.
    """
    try:
        return checks.labelled_cases(folder, cases, noun="image", labels="masks")
    except DataError as error:
        if {case.dataset for case in cases} != {layouts.HAM}:
            raise
        name = "HAM10000_segmentations_lesion_tschandl.zip"
        remedy = f"The masks of {layouts.HAM} are a file of their own: fetch and unpack {name}."
        raise checks.with_remedy(error, remedy) from error


def _require_images(scan: layouts.Scan) -> None:
    """Refuse a folder without images, and warn of files among them that are not read."""
    if not scan.found:
        raise checks.with_trees(layouts.nothing_found(scan), layouts.trees(scan))
    if scan.unread:
        warnings.warn(layouts.passed_over(scan), ImageWarning, stacklevel=3)


# What the files hold


def _read(case: Case, table: masks.CodeTable | None) -> Reading:
    reading = Reading()
    image = _load(image_files.read_image, case.images[0], reading)
    read_mask = image_files.read_image if table and table.colored else image_files.read_mask
    mask = None if case.labels is None else _load(read_mask, case.labels, reading)
    if image is None or (mask is None and case.labels is not None):
        return reading
    try:
        _check_image(image, case.dataset)
        pixels, codes, remark = _turned(image, mask)
        if remark:
            reading.remarks.append((image.path, remark))
        if mask is not None and codes is not None:
            labels = _labels(codes, mask.path, case.dataset, table, reading)
            reading.labels = np.ascontiguousarray(labels)[..., None]
    except DataError as error:
        reading.errors.append(error)
        return reading
    volume = np.ascontiguousarray(pixels)[:, :, None]
    reading.arrays = CaseArrays(volume, reading.labels, np.eye(4), ("L", "P", "S"))
    return reading


def _load(
    read: Callable[[Path], image_files.Raster], path: Path, reading: Reading
) -> image_files.Raster | None:
    loaded = reading.load(read, path)
    if loaded is not None:
        reading.remarks += [(path, remark) for remark in loaded.remarks]
    return loaded


def _check_image(image: image_files.Raster, dataset: str) -> None:
    pixels = image.pixels
    if dataset in layouts.IN_COLOR and pixels.shape[2] != 3:
        remedy = "Fetch the file again."
        raise DataError(image.path, found="gray", expected="color", remedy=remedy)
    if (pixels == pixels[0, 0]).all():
        found, remedy = f"one value only ({pixels[0, 0].tolist()})", "Leave the image out."
        raise DataError(image.path, found=found, expected="an image", remedy=remedy)


def _turned(
    image: image_files.Raster, mask: image_files.Raster | None
) -> tuple[np.ndarray, np.ndarray | None, str]:
    """Image and mask with the EXIF orientation applied, and remarks about it."""
    stored = image.pixels
    pixels = image_files.upright(stored, image.orientation)
    about = f"{image.path}: found EXIF orientation {image.orientation}, expected 1. "
    remark = f"{about}The image is turned; look whether its mask fits."
    codes = None
    if mask is not None:
        codes = image_files.upright(mask.pixels, mask.orientation)
        if codes.shape[:2] != pixels.shape[:2]:
            if codes.shape[:2] != stored.shape[:2]:
                raise DataError(
                    mask.path,
                    found=f"{codes.shape[0]} x {codes.shape[1]} pixels",
                    expected=f"{pixels.shape[0]} x {pixels.shape[1]} as in {image.path.name}",
                    remedy="Fetch or draw the mask again.",
                )
            pixels, remark = stored, f"{about}The image is not turned, as its mask is not."
    return pixels, codes, remark if image.orientation != 1 else ""


def _labels(
    codes: np.ndarray, path: Path, dataset: str, table: masks.CodeTable | None, reading: Reading
) -> np.ndarray:
    """Codes (H, W, 1) or colors (H, W, 3) of the mask at `path` -> labels (H, W) uint8."""
    if table is not None:
        labels, remark = masks.labels_of_classes(codes, table, path)
    elif dataset in (layouts.CVC, layouts.KVASIR):  # known for gray edges
        labels, remark = masks.labels_of_object(codes[..., 0], path, fewest_grays=3)[0], ""
    else:
        labels, remark = masks.labels_of_object(codes[..., 0], path)
    if remark:
        reading.remarks.append((path, remark))
    empty = not (labels if table is None else codes).any()
    for wrong, what in ((empty, "no object"), (labels.all(), "nothing but object")):
        if wrong:
            text = f"{path}: found {what} in the mask, expected some of both."
            reading.remarks.append((path, f"{text} Leave the image out if that is not so."))
    return labels


# The report


def _inspect(
    case: Case,
    table: masks.CodeTable | None,
    channels: dict[str, int],
    pixels: dict[bytes, list[Case]],
) -> Inspection:
    reading = _read(case, table)
    digests = []
    if reading.arrays is not None:
        image = reading.arrays.image
        channels[case.id] = image.shape[-1]
        digests = [(case.images[0], checks.digest(image))]
        pixels[digests[0][1]].append(case)
    return reading.inspection(case.id, digests)


def _channel_problems(cases: Sequence[Case], channels: dict[str, int]) -> Iterator[Problem]:
    """One error per image whose number of channels is not that of most images."""
    counts = Counter(channels.values())
    if len(counts) < 2:
        return
    usual = counts.most_common(1)[0][0]
    names = {1: "gray", 3: "color"}
    for case in cases:
        if channels.get(case.id, usual) != usual:
            found, expected = f"{names[channels[case.id]]}", f"{names[usual]} as most images are"
            remedy = "Convert all images to one of the two."
            error = DataError(case.images[0], found=found, expected=expected, remedy=remedy)
            yield checks.error_of(case.id, error)


def _on_several_sides(
    pixels: Mapping[bytes, Sequence[Case]], sides: Mapping[str, str]
) -> Iterator[Problem]:
    """One warning per image of the training side whose pixels are on another side, too."""
    for cases in pixels.values():
        others = [case for case in cases if sides.get(case.id) in (VALIDATION, TEST)]
        for case in cases if others else ():
            if sides.get(case.id) == TRAINING:
                side = sides[others[0].id]
                text = f"{case.images[0]}: found the pixels of {others[0].images[0]}, which is on "
                text += (
                    f"the {side} side, expected none of them on the training side. A run leaves "
                )
                text += "this one out."
                yield Problem(case.id, case.images[0], text, "warning")

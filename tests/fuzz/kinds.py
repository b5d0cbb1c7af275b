"""For each kind of input the sound trees, their damage, and how the package reads them.

`read` returns what was read, or raises. `sound` compares a result with what is known about it by
other means: nibabel for NIfTI, the undamaged pixels where a checksum vouches for them, a round trip
for recipes, the folder for manifests.
"""

import io
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import tifffile
from PIL import Image

from .mutate import (
    Tree,
    damaged,
    damaged_json,
    inside_gzip,
    inside_zip,
    resealed_png,
    resealed_weights,
    sha256_line,
)

Rng = np.random.Generator


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Attributes:
        trees: makes the sound trees; each has the files that may be damaged.
        victims: of a tree, the names of the files that may be damaged.
        damage: (rng, tree, victim, all trees) -> the damaged tree.
        read: (folder, victim) -> what the package reads.
        sound: (result, folder, tree, victim) -> what is wrong with the result; "" if nothing.
        seconds: that one input may take.
    """

    trees: Callable[[], list[Tree]]
    read: Callable[[Path, str], Any]
    damage: Callable[[Rng, Tree, str, list[Tree]], Tree]
    sound: Callable[[Any, Path, Tree, str], str]
    victims: Callable[[Tree], list[str]] = list
    seconds: float = 10.0


def _others(trees: list[Tree], victim: str) -> list[bytes]:
    suffix = Path(victim).suffix
    return [content for tree in trees for name, content in tree.items() if name.endswith(suffix)]


def _bytes_of(rng: Rng, tree: Tree, victim: str, trees: list[Tree]) -> Tree:
    return {**tree, victim: damaged(rng, tree[victim], _others(trees, victim))}


def _folder_of(write: Callable[[Path], Any]) -> Tree:
    """The files that `write` makes in a folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


# NIfTI


@cache
def _nifti_trees() -> list[Tree]:
    rng = np.random.default_rng(0)
    trees = []
    for number, dtype in enumerate(("int16", "uint8", "float32", "float64", ">i2", "uint16")):
        array = rng.integers(0, 100, (5, 6, 7) if number % 2 else (6, 5, 4, 1)).astype(dtype)
        image = (nib.Nifti2Image if number == 4 else nib.Nifti1Image)(array, np.diag([1, 1, 2, 1]))
        image.header.set_xyzt_units("mm")
        image.set_sform(image.affine, 1)
        image.set_qform(image.affine, 1)
        if number == 3:
            image.header.set_slope_inter(0.5, 3)
        for suffix in (".nii", ".nii.gz"):
            trees.append(_folder_of(lambda home, i=image, s=suffix: nib.save(i, home / f"x{s}")))
    return trees


def _damage_nifti(rng: Rng, tree: Tree, victim: str, trees: list[Tree]) -> Tree:
    if victim.endswith(".gz") and rng.random() < 0.6:
        return {**tree, victim: inside_gzip(rng, tree[victim], _others(trees, victim))}
    return _bytes_of(rng, tree, victim, trees)


def _read_nifti(folder: Path, victim: str) -> Any:
    from keras_medseg.data.formats import nifti

    return nifti.load(folder / victim)


def _sound_nifti(result: Any, folder: Path, tree: Tree, victim: str) -> str:
    """As nibabel reads the same file, if it does; it looks at less."""
    array, affine = result.array, result.header.affine
    if not (np.isfinite(array).all() and np.isfinite(affine).all() and array.ndim == 3):
        return f"{array.shape}, finite {np.isfinite(array).all()}"
    other = nib.load(folder / victim)
    expected = np.asarray(other.dataobj, np.float64).reshape(array.shape, order="F")
    if not np.allclose(array, expected, rtol=1e-5, atol=1e-30):
        return "voxels that nibabel reads otherwise"
    if not np.allclose(affine, other.affine, rtol=1e-5, atol=1e-6):
        return "an affine that nibabel reads otherwise"
    return ""


# Images


def _pillow(kind: str, pixels: np.ndarray, mode: str = "", **options: Any) -> bytes:
    image, file = Image.fromarray(pixels), io.BytesIO()
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def _tiff(pixels: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, metadata=None, **options)
    return file.getvalue()


def _drawn() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Color (24, 20, 3), gray (24, 20), and a mask of 0 and 255."""
    color = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    rows, columns = np.indices((24, 20))
    mask = np.where((rows - 9) ** 2 + (columns - 8) ** 2 < 30, 255, 0).astype(np.uint8)
    return color, np.ascontiguousarray(color[..., 0]), mask


@cache
def _image_trees(suffix: str) -> list[Tree]:
    color, gray, mask = _drawn()
    opaque = np.dstack([color, np.full_like(gray, 255)])
    exif = Image.Exif()
    exif[0x0112] = 6
    made: dict[str, list[bytes]] = {
        "png": [
            _pillow("PNG", color), _pillow("PNG", gray), _pillow("PNG", mask),
            _pillow("PNG", opaque),
            _pillow("PNG", color, "P"), _pillow("PNG", mask, "1"), _pillow("PNG", gray, "LA"),
            _pillow("PNG", color, exif=exif), _pillow("PNG", gray.astype(np.uint16) * 257),
        ],
        "jpg": [
            _pillow("JPEG", color), _pillow("JPEG", gray), _pillow("JPEG", mask, quality=98),
            _pillow("JPEG", color, progressive=True), _pillow("JPEG", color, "CMYK"),
            _pillow("JPEG", color, exif=exif, subsampling=0),
        ],
        "tif": [
            _tiff(color, photometric="minisblack", planarconfig="contig"), _tiff(gray),
            _tiff(mask, compression="zlib"),
            _pillow("TIFF", color, compression="packbits"),
            _tiff(color.transpose(2, 0, 1).copy(), photometric="rgb", planarconfig="separate"),
            _tiff(color, photometric="rgb", tile=(16, 16)), _tiff(mask, photometric="miniswhite"),
            _tiff(gray, byteorder=">"), _pillow("TIFF", color, compression="tiff_lzw"),
            _pillow("TIFF", mask, "1", compression="group4"), _pillow("TIFF", color, "P"),
            _pillow("TIFF", color, compression="jpeg"), _tiff(gray.astype(np.float32)),
        ],
        "bmp": [
            _pillow("BMP", color), _pillow("BMP", gray), _pillow("BMP", mask, "1"),
            _pillow("BMP", color, "P"), _pillow("BMP", opaque),
        ],
    }  # fmt: skip
    return [{f"x.{suffix}": content} for content in made[suffix]]


def _damage_image(rng: Rng, tree: Tree, victim: str, trees: list[Tree]) -> Tree:
    made = _bytes_of(rng, tree, victim, trees)
    if victim.endswith(".png") and rng.random() < 0.6:
        made[victim] = resealed_png(made[victim])
    return made


def _read_image(folder: Path, victim: str) -> Any:
    """As an image, as a mask, and written again."""
    from keras_medseg.data.formats import image_files

    raster = image_files.read_image(folder / victim)
    image_files.write(folder / "again.png", raster.pixels)
    again = image_files.read_image(folder / "again.png").pixels
    try:
        mask = image_files.read_mask(folder / victim).pixels
    except ValueError as error:  # an image need not be a mask
        _require_one_line(error)
        mask = raster.pixels[..., :1]
    return raster, again, mask


def _sound_image(result: Any, folder: Path, tree: Tree, victim: str) -> str:
    raster, again, mask = result
    pixels = raster.pixels
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        return f"{pixels.dtype} of shape {pixels.shape}"
    if not np.array_equal(pixels, again):
        return "other pixels when written and read again"
    if mask.shape != (*pixels.shape[:2], 1) or raster.orientation not in range(1, 9):
        return f"a mask of shape {mask.shape}, orientation {raster.orientation}"
    return ""


# Recipes


@cache
def _recipe_trees() -> list[Tree]:
    from experiments.dcabes2020.recipe import EXPERIMENTS as SLICES
    from experiments.dcabes2020.rivals import OMNET as SEGMENTS
    from experiments.fmnet2023.recipe import EXPERIMENTS as PATCHES
    from experiments.iacnn.recipe import EXPERIMENTS as IMAGES
    from keras_medseg import recipe

    chosen = [next(iter(found.values())).recipe for found in (SLICES, PATCHES, IMAGES)]
    texts = [recipe.to_json(one).encode() for one in chosen]
    chosen.append(recipe.override(chosen[0], SEGMENTS))
    variant = json.dumps({"recipe": recipe.to_tree(chosen[2]), "trained_as": "x", "fitted": {}})
    return [{"recipe.json": text} for text in (*texts, variant.encode())]


def _damage_text(rng: Rng, tree: Tree, victim: str, trees: list[Tree]) -> Tree:
    if victim.endswith(".json") and rng.random() < 0.7:
        return {**tree, victim: damaged_json(rng, tree[victim])}
    return _bytes_of(rng, tree, victim, trees)


def _read_recipe(folder: Path, victim: str) -> Any:
    from keras_medseg.runs.run_folder import read_recipe
    from keras_medseg.tasks import task_of

    found = read_recipe(folder / victim)
    try:
        task_of(found)
    except ValueError as error:  # a recipe that is sound by itself may not fit its data set
        _require_one_line(error)
    return found


def _require_one_line(error: Exception) -> None:
    assert "found" in str(error), repr(error)
    assert "\n" not in str(error), repr(error)


def _sound_recipe(result: Any, folder: Path, tree: Tree, victim: str) -> str:
    from keras_medseg import recipe

    again = recipe.from_json(recipe.to_json(result))
    return "" if repr(again) == repr(result) else f"another recipe when written: {again}"


# Manifests and folders of images


@cache
def _manifest_trees() -> list[Tree]:
    color, _, mask = _drawn()
    files = {f"images/{x}.png": _pillow("PNG", np.roll(color, i, 0)) for i, x in enumerate("abcd")}
    files |= {f"masks/{x}.png": _pillow("PNG", mask) for x in "abcd"}
    rows = [
        f"images/{x}.png,masks/{x}.png,{x},{side}"
        for x, side in zip("abcd", ("training", "validation") * 2)
    ]
    tables = [
        "image,mask,group,split\n" + "\n".join(rows) + "\n",
        "image,mask\r\n" + "\r\n".join(",".join(row.split(",")[:2]) for row in rows),
        "\ufeffmask,image,group\n"
        + "\n".join(f"{row.split(',')[1]},{row.split(',')[0]},g" for row in rows),
    ]
    return [{**files, "manifest.csv": table.encode()} for table in tables]


@cache
def _layout_trees() -> list[Tree]:
    """Image folders with the tables that are read beside them."""
    color, _, mask = _drawn()
    images = [_pillow("PNG", np.roll(color, i, 0)) for i in range(3)]
    png = _pillow("PNG", mask)
    frames = {f"Original/{i + 1}.png": image for i, image in enumerate(images)}
    frames |= {f"Ground Truth/{i + 1}.png": png for i in range(3)}
    skin = {f"HAM10000_images_part_1/ISIC_002430{i + 6}.png": x for i, x in enumerate(images)}
    skin |= {f"masks/ISIC_002430{i + 6}_segmentation.png": png for i in range(3)}
    table = "lesion_id,image_id,dx\n" + "".join(
        f"HAM_{i % 2},ISIC_002430{i + 6},nv\n" for i in range(3)
    )
    classes = {"object": ["#ffffff"], "background": [128, "#00ff00"]}
    return [
        {**frames, "README.txt": b"|   1 to   2 | 1 |\n|   3 to   3 |   2 |\n"},
        {**skin, "HAM10000_metadata.csv": table.encode()},
        {**_manifest_trees()[1], "classes.json": json.dumps(classes).encode()},
        {**_manifest_trees()[1], "classes.json": json.dumps({"object": 255}).encode()},
    ]


def _read_images(folder: Path, victim: str) -> Any:
    from keras_medseg.data import datasets, store
    from keras_medseg.data.datasets.image_folders import ImageFolders

    kind = datasets.of_folder(folder)
    assert isinstance(kind, ImageFolders)
    kind.check(folder, workers=1)
    listing = kind.find(folder)
    store._check_ids(listing.cases)
    try:
        kind.read(listing.cases[0])
    except ValueError as error:  # a sound list of cases may name a damaged image
        _require_one_line(error)
    return listing


def _sound_listing(result: Any, folder: Path, tree: Tree, victim: str) -> str:
    for case in result.cases:
        for path in (*case.images, *([case.labels] if case.labels else [])):
            if not Path(path).resolve().is_relative_to(folder.resolve()):
                return f"{path}, which lies outside of the folder"
    wrong = set(result.sides.values()) - {"training", "validation", "test"}
    return f"sides {wrong}" if wrong else ""


def _only(*endings: str) -> Callable[[Tree], list[str]]:
    return lambda tree: [name for name in tree if name.endswith(endings)]


# Checkpoints


@cache
def _checkpoint_trees() -> list[Tree]:
    from keras_medseg.training import checkpoint

    rng = np.random.default_rng(0)
    arrays = {f"weights_{i}": rng.standard_normal((3, i + 1)).astype(np.float32) for i in range(4)}
    record = {"identity": {"a": [1, 2]}, "log": [{"epoch": 0, "loss": 0.5}]}
    one = _folder_of(lambda home: checkpoint.save(home, 1, arrays, record))

    def two(home: Path) -> None:
        checkpoint.save(home, 1, arrays, record)
        checkpoint.save(home, 2, {name: 2 * array for name, array in arrays.items()}, record)

    return [one, _folder_of(two)]


def _damage_checkpoint(rng: Rng, tree: Tree, victim: str, trees: list[Tree]) -> Tree:
    if not victim.endswith(".npz"):
        return _bytes_of(rng, tree, victim, trees)
    inner = rng.random() < 0.5
    content = tree[victim]
    if inner:
        content = inside_zip(rng, content, lambda name, old: damaged(rng, old, [old]))
    else:
        content = damaged(rng, content, _others(trees, victim))
    made = {**tree, victim: content}
    if rng.random() < 0.7:
        made[f"{victim}.sha256"] = sha256_line(content, victim)
    return made


def _read_checkpoint(folder: Path, victim: str) -> Any:
    from keras_medseg.training import checkpoint

    return checkpoint.load_latest(folder)


def _sound_checkpoint(result: Any, folder: Path, tree: Tree, victim: str) -> str:
    if result is None:
        return ""
    arrays, record = result
    if not isinstance(record, dict) or any(array.dtype == object for array in arrays.values()):
        return f"record {record}"
    return ""


# Stores


@cache
def _store_trees() -> list[Tree]:
    from keras_medseg.data import store
    from keras_medseg.data.datasets.image_folders import ImageFolders

    def write(home: Path) -> None:
        source = home / "source"
        for name, content in _manifest_trees()[0].items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(content)
        kind = ImageFolders()
        store.prepare(kind.find(source).cases, kind.read, home / "store", workers=1)

    return [{name: data for name, data in _folder_of(write).items() if name.startswith("store/")}]


def _damage_store(rng: Rng, tree: Tree, victim: str, trees: list[Tree]) -> Tree:
    return _damage_text(rng, tree, victim, trees)


def _read_store(folder: Path, victim: str) -> Any:
    from keras_medseg.data import store

    opened = store.open_store(folder / "store")
    return {name: (case.full_image(), case.full_labels()) for name, case in opened.cases.items()}


@cache
def _store_arrays() -> Any:
    with tempfile.TemporaryDirectory() as name:
        for path, content in _store_trees()[0].items():
            (Path(name) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(name) / path).write_bytes(content)
        return _read_store(Path(name), "")


def _sound_store(result: Any, folder: Path, tree: Tree, victim: str) -> str:
    """What is read is what was stored: everything has a checksum."""
    expected = _store_arrays()
    same = result.keys() == expected.keys() and all(
        np.array_equal(a, b) for name in expected for a, b in zip(result[name], expected[name])
    )
    return "" if same else "other cases or pixels than were stored"


# Run folders


@contextmanager
def _quiet() -> Iterator[None]:
    import contextlib

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@cache
def _run_trees() -> list[Tree]:
    """A finished run of one epoch on eight synthetic frames, without its store and figures."""
    from experiments.iacnn.recipe import EXPERIMENTS
    from keras_medseg import phantoms
    from keras_medseg.runs import experiment

    changes = {
        "train.epochs": 1,
        "train.batch_size": 4,
        "data.size": (32, 32),
        "model.name": "unet",
        "model.options": {"filters": 2, "activation": "sigmoid"},
    }

    def write(home: Path) -> None:
        phantoms.write(home / "data", layout="CVC-ClinicDB", cases=8, size=(48, 64))
        request = experiment.Request(
            out=home / "run",
            folder=home / "data",
            profile="train",
            command="",
            store=home / "store",
            changes=changes,
        )
        with _quiet():
            experiment.run(experiment.of_recipe(EXPERIMENTS["cvc"].recipe), request)

    files = {
        name: content
        for name, content in _folder_of(write).items()
        if name.startswith("run/") and "tensorboard" not in name and "figures" not in name
    }
    return [files]


def _run_victims(tree: Tree) -> list[str]:
    endings = (".json", ".csv", ".keras", ".npz", ".sha256")
    names = [name for name in tree if name.endswith(endings)]
    return [name for name in names if not name.endswith(("tests.csv", "table.csv"))]


def _damage_run(rng: Rng, tree: Tree, victim: str, trees: list[Tree]) -> Tree:
    if victim.endswith(".keras") and rng.random() < 0.6:

        def change(name: str, old: bytes) -> bytes:
            return damaged_json(rng, old) if name.endswith(".json") else damaged(rng, old, [old])

        return {**tree, victim: inside_zip(rng, tree[victim], change)}
    return _damage_text(rng, tree, victim, trees)


def _read_run(folder: Path, victim: str) -> Any:
    from keras_medseg.runs import report
    from keras_medseg.runs.members import members
    from keras_medseg.runs.run_folder import RunFolder
    from keras_medseg.training import checkpoint

    run = RunFolder(folder / "run")
    found = [run.run, run.recipe, run.variants, run.scores(), run.provenance(), run.logs()]
    if victim.endswith(".keras"):
        for name in run.run["variants"]:
            found.append(run.networks(name))
    for path in sorted((folder / "run").glob("training/*/checkpoint")):
        checkpoint.load_latest(path)
    for name in run.run["variants"]:
        members([run.path], name)[0].identity()
    try:
        report.open_cohort(run)
    except ValueError as error:  # the store is not part of the tree
        _require_one_line(error)
    return found


def _sound_run(result: Any, folder: Path, tree: Tree, victim: str) -> str:
    facts, _, variants, _, provenance, *_ = result
    if not isinstance(facts, dict) or not isinstance(provenance, dict):
        return f"facts {type(facts)}, provenance {type(provenance)}"
    if set(variants) != set(facts["variants"]):
        return "other variants than run.json names"
    return ""


# Archives of weights


@cache
def _weights_trees() -> list[Tree]:
    """The weights that come with the package, in an archive."""
    from keras_medseg.runs import installed, packing
    from keras_medseg.runs.run_folder import RunFolder

    shipped = RunFolder(installed.SHIPPED / "phantom/brats2021-small")
    return [_folder_of(lambda home: packing.pack(shipped, home / "weights.zip"))]


def _damage_weights(rng: Rng, tree: Tree, victim: str, trees: list[Tree]) -> Tree:
    """Damage to the archive, or to one of its files with all checksums made right again."""
    if rng.random() < 0.3:
        return _bytes_of(rng, tree, victim, trees)

    def change(name: str, old: bytes) -> bytes:
        if name.endswith(".json") and rng.random() < 0.8:
            return damaged_json(rng, old)
        return damaged(rng, old, [old])

    return {**tree, victim: resealed_weights(inside_zip(rng, tree[victim], change))}


def _read_weights(folder: Path, victim: str) -> Any:
    from keras_medseg.runs import packages
    from keras_medseg.runs.predictor import Predictor

    home = folder / "weights"
    packages.unpack(folder / victim, home)
    return Predictor([packages.open_weights(home)])


def _sound_weights(result: Any, folder: Path, tree: Tree, victim: str) -> str:
    """It predicts a case of its own channels."""
    volume = np.random.default_rng(0).integers(1, 99, (48, 48, 32, len(result.channels)))
    found = result(volume, spacing_mm=(1, 1, 1))
    sound = set(np.unique(found.labels)) <= {0, *result.labels}
    return "" if sound else "labels that have no name"


KINDS = {
    "nifti": Kind(_nifti_trees, _read_nifti, _damage_nifti, _sound_nifti),
    "png": Kind(lambda: _image_trees("png"), _read_image, _damage_image, _sound_image),
    "jpeg": Kind(lambda: _image_trees("jpg"), _read_image, _damage_image, _sound_image),
    "tiff": Kind(lambda: _image_trees("tif"), _read_image, _damage_image, _sound_image),
    "bmp": Kind(lambda: _image_trees("bmp"), _read_image, _damage_image, _sound_image),
    "recipe": Kind(_recipe_trees, _read_recipe, _damage_text, _sound_recipe),
    "manifest": Kind(
        _manifest_trees, _read_images, _damage_text, _sound_listing, _only("manifest.csv", "a.png")
    ),
    "folder": Kind(
        _layout_trees, _read_images, _damage_text, _sound_listing, _only(".csv", ".txt", ".json")
    ),
    "checkpoint": Kind(_checkpoint_trees, _read_checkpoint, _damage_checkpoint, _sound_checkpoint),
    "store": Kind(_store_trees, _read_store, _damage_store, _sound_store),
    "weights": Kind(_weights_trees, _read_weights, _damage_weights, _sound_weights, seconds=60.0),
    "run": Kind(_run_trees, _read_run, _damage_run, _sound_run, _run_victims, seconds=60.0),
}
"""Name -> kind of input."""

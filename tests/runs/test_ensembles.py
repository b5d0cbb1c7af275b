"""Several runs, flips, thresholds, maps and parts, by networks whose answers are known."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keras_medseg import cli, recipe, registry
from keras_medseg.data.fractions import write_fractions
from keras_medseg.data.transforms.resample import resample_image, resample_labels, resample_map
from keras_medseg.data.transforms.resize import resize, restore
from keras_medseg.errors import DataError
from keras_medseg.evaluation.matching import match
from keras_medseg.runs import predict_folder as module
from keras_medseg.runs.members import decode, entropy, members, pool
from keras_medseg.runs.predict_folder import Options, Part, predict_with
from keras_medseg.runs.run_folder import RunFolder, Variant

from ..known_runs import (
    AS_THEY_ARE,
    CENTER,
    IMAGES,
    PATCHES,
    SHAPE,
    SLICES,
    constant,
    next_voxel,
    read_map,
    write_images,
    write_run,
    write_volumes,
)

FIRST = "BraTS2021_00000.nii.gz"
EDEMA = 2
"""What a whole tumor alone is written as."""


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """Five cases, and their FLAIR images."""
    folder = tmp_path_factory.mktemp("heads")
    return folder, write_volumes(folder, 5)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run folders by what their network answers."""
    folder = tmp_path_factory.mktemp("runs")
    for percent in (25, 50, 75):
        write_run(folder / f"slices_{percent}", constant(percent / 100))
    write_run(folder / "patches_75", constant(0.75, dimensions=3), PATCHES)
    write_run(folder / "next", next_voxel(), variants=("main", "other"))
    write_run(folder / "next_3d", next_voxel(3), PATCHES)
    write_run(
        folder / "next_of_slices", next_voxel(), recipe.override(PATCHES, {"data.slices": True})
    )
    colors = {"channels": 3}
    write_run(folder / "image_25", constant(0.25, **colors), IMAGES, fitted=AS_THEY_ARE)
    larger = recipe.override(IMAGES, {"data.size": (64, 48), "data.fit": "stretch"})
    write_run(folder / "image_75", constant(0.75, **colors), larger, fitted=AS_THEY_ARE)
    write_run(folder / "next_pixel", next_voxel(2, 3, 1), IMAGES, fitted=AS_THEY_ARE)
    return folder


def bits(p):
    return -p * np.log2(p) - (1 - p) * np.log2(1 - p)


def in_window(value):
    expected = np.zeros(SHAPE)
    expected[CENTER] = value
    return expected


def after(values, axis=0):
    """What `next_voxel` answers for an array that is the whole input."""
    shifted = np.zeros(values.shape)
    shifted[:-1] = values[1:]
    return shifted


def mirrored(values, axes):
    """The mean of `after` over all mirrored inputs, written out."""
    every = [()]
    for axis in axes:
        every += [(*flip, axis) for flip in every]
    return np.mean([np.flip(after(np.flip(values, flip)), flip) for flip in every], axis=0)


def tree(folder):
    """All files but the lock, with their content."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_one_run_without_options_predicts_as_ever(heads, runs, tmp_path):
    """Thresholded slices of the window, from the voxels of the file alone; nothing else written."""
    folder, flairs = heads
    done = predict_with(members([runs / "next"]), folder, tmp_path)
    assert done.endswith("5 label maps of WT by the variant main")
    for number, flair in enumerate(flairs):
        found = read_map(tmp_path / f"BraTS2021_{number:05}.nii.gz")
        expected = in_window(EDEMA * (after(flair[CENTER] / 16) > 0.5))
        np.testing.assert_array_equal(found, expected)
    assert len([*tmp_path.iterdir()]) == 5 + 1


def test_a_run_averaged_with_itself_is_that_run(heads, runs, tmp_path):
    run = runs / "next"
    predict_with(members([run]), heads[0], tmp_path / "one")
    predict_with(members([f"{run}:other", run, run]), heads[0], tmp_path / "three")
    one, three = tree(tmp_path / "one"), tree(tmp_path / "three")
    assert one.keys() == three.keys()
    assert all(one[name] == three[name] for name in one if name.endswith(".gz"))


def test_the_mean_its_entropy_and_the_disagreement_by_hand(heads, runs, tmp_path):
    # (1/4 + 1/2 + 3/4) / 3 = 1/2, which is not above 1/2, but above 0.4.
    three = members([runs / f"slices_{percent}" for percent in (25, 50, 75)])
    asked = Options(threshold=0.4, probabilities=True, uncertainty=True)
    done = predict_with(three, heads[0], tmp_path / "out", asked)
    assert done.endswith("5 label maps of WT by the mean of 3 members")
    np.testing.assert_array_equal(read_map(tmp_path / "out" / FIRST), in_window(EDEMA))
    found = read_map(tmp_path / "out/probabilities/WT" / FIRST)
    np.testing.assert_array_equal(found, in_window(0.5))
    # One half is one bit. 1/4 and 3/4 are 0.811278 bits: 1 - (2 * 0.811278 + 1) / 3 = 0.125815.
    np.testing.assert_array_equal(read_map(tmp_path / "out/entropy/WT" / FIRST), in_window(1))
    found = read_map(tmp_path / "out/disagreement/WT" / FIRST)
    np.testing.assert_allclose(found, in_window(0.125815), atol=2**-15)
    predict_with(three, heads[0], tmp_path / "half")
    assert not read_map(tmp_path / "half" / FIRST).any()


def test_disagreement_is_the_mean_divergence_from_the_ensemble():
    """Kullback-Leibler, from its definition, for members that say 0.1, 0.2 and 0.9."""
    each = np.array([0.1, 0.2, 0.9])
    mean = each.mean()
    divergence = each * np.log2(each / mean) + (1 - each) * np.log2((1 - each) / (1 - mean))
    means = {"a": np.float32([mean])}
    of_members = {"a": np.float32([entropy(np.float32([p]))[0] for p in each]).mean(keepdims=True)}
    maps = module._asked_maps(means, of_members, Options(uncertainty=True))
    assert maps["disagreement"]["a"] == pytest.approx(divergence.mean(), abs=1e-6)
    assert maps["entropy"]["a"] == pytest.approx(bits(mean), abs=1e-6)


def test_entropy_at_its_ends():
    np.testing.assert_allclose(
        entropy(np.float32([0, 0.5, 1, 0.11])), [0, 1, 0, bits(0.11)], atol=1e-6
    )


def test_one_run_has_entropy_and_no_disagreement(heads, runs, tmp_path):
    predict_with(members([runs / "slices_25"]), heads[0], tmp_path, Options(uncertainty=True))
    found = read_map(tmp_path / "entropy/WT" / FIRST)
    np.testing.assert_allclose(found, in_window(bits(0.25)), atol=2**-15)
    assert not (tmp_path / "disagreement").exists()
    assert not (tmp_path / "probabilities").exists()


def test_members_of_other_recipes_are_averaged_on_the_full_grid(heads, runs, tmp_path):
    """Slices see the window, where (1/4 + 3/4) / 2 = 1/2; patches the rest too: 3/8."""
    both = members([runs / "slices_25", runs / "patches_75"])
    predict_with(both, heads[0], tmp_path, Options(probabilities=True, threshold=0.4))
    expected = np.full(SHAPE, 0.375)
    expected[CENTER] = 0.5
    found = read_map(tmp_path / "probabilities/WT" / FIRST)
    np.testing.assert_allclose(found, expected, atol=2**-15)
    np.testing.assert_array_equal(read_map(tmp_path / FIRST), in_window(EDEMA))


def test_regions_are_averaged_whatever_network_they_come_from(heads, tmp_path):
    """WT (0.8 + 0.6) / 2 = 0.7; TC (0.3 + 0.9) / 2 = 0.6. One member has two networks for them."""
    apart = {("TC",): constant(0.3), ("WT",): constant(0.8)}
    one = write_run(tmp_path / "apart", apart)
    together = write_run(tmp_path / "together", {("WT", "TC"): constant(0.6, 0.9)})
    both = members([one.path, together.path])
    done = predict_with(both, heads[0], tmp_path / "out", Options(probabilities=True))
    assert done.endswith("of TC, WT by the mean of 2 members")
    for region, value in (("WT", 0.7), ("TC", 0.6)):
        found = read_map(tmp_path / "out/probabilities" / region / FIRST)
        np.testing.assert_allclose(found, in_window(value), atol=2**-14)
    # Core without enhancing tumor is necrosis, code 1.
    np.testing.assert_array_equal(read_map(tmp_path / "out" / FIRST), in_window(1))
    strict = Options(threshold=0.65)
    predict_with(both, heads[0], tmp_path / "strict", strict)
    np.testing.assert_array_equal(read_map(tmp_path / "strict" / FIRST), in_window(EDEMA))


@pytest.mark.parametrize(
    ("run", "flips", "seen"),
    [
        ("next", "x", [0]),
        ("next", "xy", [0, 1]),
        ("next", "yz", [1]),  # slices have no z
        ("next_3d", "xyz", [0, 1, 2]),
        ("next_3d", "z", [2]),
        ("next_of_slices", "xz", [0]),
    ],
)
def test_flips_of_a_network_that_looks_to_one_side(heads, runs, tmp_path, run, flips, seen):
    folder, flairs = heads
    asked = Options(flips=flips, probabilities=True)
    predict_with(members([runs / run]), folder, tmp_path, asked, part=Part(1, 5))
    found = read_map(tmp_path / "probabilities/WT" / FIRST)
    flair = flairs[0] / 16
    if run == "next":
        expected = in_window(mirrored(flair[CENTER], seen))
    else:
        expected = windows_of(flair, seen, depth=1 if "slices" in run else 4)
    np.testing.assert_allclose(found, expected, atol=2**-14)


def windows_of(flair, axes, depth):
    """Patches of (8, 6, depth) with half overlap, averaged by Gaussian weights, for each flip."""

    def once(volume):
        total, weight = np.zeros(SHAPE), np.zeros(SHAPE)
        lines = [np.exp(-((np.arange(n) - (n - 1) / 2) ** 2) / (2 * (n / 8) ** 2)) for n in (8, 6)]
        last = np.arange(depth) - (depth - 1) / 2
        lines.append(np.exp(-(last**2) / (2 * (depth / 8) ** 2)))
        weights = np.maximum(np.einsum("i,j,k->ijk", *lines), 0.001)
        for x in (0, 4):
            for y in (0, 3, 4):
                for z in range(8) if depth == 1 else (0, 2, 4):
                    part = np.s_[x : x + 8, y : y + 6, z : z + depth]
                    total[part] += weights * after(volume[part])
                    weight[part] += weights
        return total / weight

    every = [()]
    for axis in axes:
        every += [(*flip, axis) for flip in every]
    return np.mean([np.flip(once(np.flip(flair, flip)), flip) for flip in every], axis=0)


def test_images_of_several_sizes_meet_on_the_images_own_grid(runs, tmp_path):
    """One network sees 16 x 24 pixels, the other 64 x 48; the images have 32 x 40."""
    write_images(tmp_path / "data", 2)
    both = members([runs / "image_25", runs / "image_75"])
    asked = Options(threshold=0.49, probabilities=True, uncertainty=True)
    predict_with(both, tmp_path / "data", tmp_path / "out", asked)
    labels = np.asarray(Image.open(tmp_path / "out/0.png"))
    assert labels.shape == (32, 40)
    assert (labels == 255).all()
    # 65535 / 2 = 32767.5; entropy one bit; disagreement 1 - 0.811278 = 0.188722, times 65535.
    expected = {"probabilities": 32768, "entropy": 65535, "disagreement": 12368}
    for kind, value in expected.items():
        found = np.asarray(Image.open(tmp_path / f"out/{kind}/polyp/0.png")).astype(int)
        assert found.shape == (32, 40)
        assert np.abs(found - value).max() <= 1


@pytest.mark.parametrize(("flips", "axes"), [("x", [0]), ("y", [1]), ("xy", [0, 1])])
def test_flips_of_images(runs, tmp_path, flips, axes):
    """x are the rows, as in the recipes. Images of the network's size are not resized."""
    [pixels] = write_images(tmp_path / "data", 1, size=(16, 24))
    asked = Options(flips=flips, probabilities=True)
    predict_with(members([runs / "next_pixel"]), tmp_path / "data", tmp_path / "out", asked)
    found = np.asarray(Image.open(tmp_path / "out/probabilities/polyp/0.png")) / 65535
    np.testing.assert_allclose(found, mirrored(pixels[..., 0] / 255, axes), atol=2e-5)


def test_a_cropped_image_has_probability_0_where_no_network_looked(runs, tmp_path):
    """Of 20 rows the 16 in the middle are seen."""
    cut = recipe.override(IMAGES, {"data.fit": "cut"})
    run = write_run(tmp_path / "run", constant(0.75, channels=3), cut, fitted=AS_THEY_ARE)
    write_images(tmp_path / "data", 1, size=(20, 24))
    twice = members([run.path, run.path])
    predict_with(twice, tmp_path / "data", tmp_path / "out", Options(probabilities=True))
    found = np.asarray(Image.open(tmp_path / "out/probabilities/polyp/0.png"))
    assert (found[2:18] == 49151).all()  # 65535 * 3 / 4 = 49151.25
    assert not found[:2].any()
    assert not found[18:].any()
    labels = np.asarray(Image.open(tmp_path / "out/0.png"))
    np.testing.assert_array_equal(labels, np.where(found > 0, 255, 0))


def test_resampled_volumes_meet_on_the_files_own_grid(heads, runs, tmp_path):
    """One member sees voxels of 2 mm, a grid of 6 x 5 x 4; the files have 1 mm."""
    coarse = recipe.override(
        PATCHES, {"data.options": {"spacing_mm": (2, 2, 2)}, "data.patch": (4, 4, 4)}
    )
    run = write_run(tmp_path / "coarse", constant(0.25, dimensions=3), coarse)
    both = members([run.path, runs / "patches_75"])
    predict_with(both, heads[0], tmp_path / "out", Options(probabilities=True, threshold=0.49))
    found = read_map(tmp_path / "out/probabilities/WT" / FIRST)
    assert found.shape == SHAPE
    np.testing.assert_allclose(found, 0.5, atol=2**-14)
    np.testing.assert_array_equal(read_map(tmp_path / "out" / FIRST), np.full(SHAPE, EDEMA))


def test_one_run_decides_on_the_grid_that_its_network_sees(heads, runs, tmp_path):
    """As its scores do: label maps are brought back, not probabilities."""
    [pixels] = write_images(tmp_path / "data", 1)
    predict_with(members([runs / "next_pixel"]), tmp_path / "data", tmp_path / "images")
    seen = resize(pixels, (16, 24))[..., 0] / 255
    expected = restore(np.uint8(255) * (after(seen) > 0.5), (32, 40))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "images/0.png")), expected)

    finer = recipe.override(
        PATCHES, {"data.options": {"spacing_mm": (0.8, 1, 1)}, "data.patch": (15, 10, 8)}
    )
    run = write_run(tmp_path / "finer", next_voxel(3), finer)
    one = members([run.path])
    predict_with(one, heads[0], tmp_path / "volumes", Options(uncertainty=True, probabilities=True))
    seen = resample_image(heads[1][0][..., None].astype("f4"), (15, 10, 8))[..., 0] / 16
    labels = np.uint8(EDEMA) * (after(seen) > 0.5)
    found = read_map(tmp_path / "volumes" / FIRST)
    np.testing.assert_array_equal(found, resample_labels(labels, SHAPE))
    found = read_map(tmp_path / "volumes/probabilities/WT" / FIRST)
    np.testing.assert_allclose(found, resample_map(after(seen), SHAPE), atol=1e-4)
    # Entropy is that of the probabilities beside it.
    inside = (found > 0.01) & (found < 0.99)
    entropies = read_map(tmp_path / "volumes/entropy/WT" / FIRST)
    np.testing.assert_allclose(entropies[inside], bits(found[inside]), atol=1e-3)


def test_the_overlap_of_the_windows(heads, runs, tmp_path):
    """Without overlap, windows begin at 0 and 4 of 12 voxels (8 wide): other means than at half."""
    from keras_medseg.inference.sliding_window import window_starts

    asked = Options(overlap=0.0, probabilities=True)
    predict_with(members([runs / "next_3d"]), heads[0], tmp_path / "a", asked, part=Part(1, 5))
    half = Options(probabilities=True)
    predict_with(members([runs / "next_3d"]), heads[0], tmp_path / "b", half, part=Part(1, 5))
    a, b = (read_map(tmp_path / name / "probabilities/WT" / FIRST) for name in "ab")
    assert window_starts((8,), (4,), 0) == [(0,), (4,)]  # along z: voxels 0 to 3 are seen once
    assert np.abs(a - b).max() > 0.01
    record = json.loads((tmp_path / "a/predictions.json").read_text())
    assert record["options"]["data"]["overlap"] == 0
    with pytest.raises(DataError, match="with another options"):
        predict_with(members([runs / "next_3d"]), heads[0], tmp_path / "a", half)


def test_parts_together_are_the_whole(heads, runs, tmp_path):
    both = members([runs / "next", runs / "slices_75"])
    asked = Options(probabilities=True, uncertainty=True, flips="x")
    predict_with(both, heads[0], tmp_path / "whole", asked)
    counts = []
    for number in (3, 1, 2):
        part = Part(number, 3)
        done = predict_with(both, heads[0], tmp_path / "parts", asked, part=part)
        assert done.endswith(f" (part {number} of 3)")
        counts.append(len([*(tmp_path / "parts").glob("*.gz")]))
    assert counts == [1, 3, 5]  # of 5 cases: the third; first and fourth; second and fifth
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")


def test_a_case_that_cannot_be_read_concerns_its_own_part_alone(heads, runs, tmp_path):
    data = shutil.copytree(heads[0], tmp_path / "data")
    next(data.rglob("BraTS2021_00001_t2.nii.gz")).write_bytes(b"")
    next(data.rglob("BraTS2021_00003_t2.nii.gz")).unlink()
    one = members([runs / "slices_75"])
    # Found whole: 0, 1, 2, 4. Not whole: 3, the first of its kind, which goes to the first part.
    with pytest.raises(DataError, match=r"(?s)2 of 3 label maps.*no BraTS2021_00003_t2"):
        predict_with(one, data, tmp_path / "out", part=Part(1, 2))
    with pytest.raises(DataError, match=r"(?s)1 of 2 label maps.*00001_t2"):
        predict_with(one, data, tmp_path / "out", part=Part(2, 2))
    names = {path.name[:-7] for path in (tmp_path / "out").glob("*.gz")}
    assert names == {"BraTS2021_00000", "BraTS2021_00002", "BraTS2021_00004"}


def test_an_interrupted_prediction_goes_on_from_the_case_that_it_was_in(
    heads, runs, tmp_path, monkeypatch
):
    """Stopped between the maps and the label map of the second case, which is then whole."""
    both = members([runs / "next", runs / "slices_75"])
    asked = Options(probabilities=True, uncertainty=True)
    predict_with(both, heads[0], tmp_path / "whole", asked)
    written = []

    def stop(path, values, case):
        written.append(path)
        if len(written) == 5:
            raise KeyboardInterrupt
        write_fractions(path, values, case)

    monkeypatch.setattr(module, "write_fractions", stop)
    with pytest.raises(KeyboardInterrupt):
        predict_with(both, heads[0], tmp_path / "out", asked)
    assert [path.name for path in (tmp_path / "out").glob("*.gz")] == [FIRST]
    before = (tmp_path / "out" / FIRST).stat().st_mtime_ns
    monkeypatch.undo()
    predict_with(both, heads[0], tmp_path / "out", asked)
    assert (tmp_path / "out" / FIRST).stat().st_mtime_ns == before
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def process(*words):
    return subprocess.Popen(
        [sys.executable, "-m", "keras_medseg.cli", "predict", *map(str, words)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.DEVNULL,
    )


@pytest.mark.slow
def test_a_killed_prediction_and_parts_side_by_side(heads, runs, tmp_path):
    words = [runs / "next", runs / "slices_75", heads[0]]
    options = ["--probabilities", "--uncertainty", "--flips", "xy"]
    asked = Options(probabilities=True, uncertainty=True, flips="xy")
    predict_with(members(words[:2]), heads[0], tmp_path / "whole", asked)
    killed = process(*words, tmp_path / "killed", *options)
    while not (tmp_path / "killed" / FIRST).exists():
        assert killed.poll() is None
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert process(*words, tmp_path / "killed", *options).wait() == 0
    # What was being written when the process was killed stays behind, under a hidden name.
    found = {
        name: content
        for name, content in tree(tmp_path / "killed").items()
        if "/." not in f"/{name}"
    }
    assert found == tree(tmp_path / "whole")
    parts = [process(*words, tmp_path / "parts", *options, "--part", f"{k}/3") for k in (1, 2, 3)]
    assert [part.wait() for part in parts] == [0, 0, 0]
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")


@pytest.mark.slow
def test_the_page_on_prediction_does_what_it_says(tmp_path, monkeypatch, capsys):
    """Every command in order, after those of own_data.md, on smaller heads and with two epochs."""
    docs = Path(__file__).parents[2] / "docs"
    monkeypatch.chdir(tmp_path)
    shown = (docs / "own_data.md").read_text()
    chosen = json.loads(shown.partition("```json")[2].partition("```")[0])
    chosen["data"]["window"], chosen["data"]["options"]["spacing_mm"] = [48, 48, 24], [5.5] * 3
    chosen["model"]["options"]["filters"], chosen["train"]["epochs"] = 4, 2
    Path("recipe.json").write_text(json.dumps(chosen))
    starts = ("keras-medseg phantom", "keras-medseg train")
    before = [line for line in shown.splitlines() if line.startswith(starts)]
    before = [line for line in before if "--recipe dcabes2020" not in line]
    page = (docs / "prediction.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith("keras-medseg ")]
    assert len(before) == 3
    assert len(lines) == 6
    for line in [*before, *lines]:
        words = shlex.split(line.replace("64 64 40", "48 48 31"))[1:]
        assert cli.main(words) == 0, capsys.readouterr().err
    names = {path.name for path in Path("new/labelsTr").iterdir()}
    assert len(names) == 2
    for kind in ("probabilities", "entropy", "disagreement"):
        for region in ("whole", "core", "enhancing"):
            assert {path.name for path in Path("ensemble", kind, region).iterdir()} == names
    assert names < {path.name for path in Path("parts").iterdir()}
    assert "new" in Path("evaluation/evaluation.html").read_text()


def test_the_record_names_all_members_and_options(heads, runs, tmp_path):
    both = members([runs / "slices_25", runs / "next"])
    predict_with(both, heads[0], tmp_path / "out", Options(flips="x"))
    record = json.loads((tmp_path / "out/predictions.json").read_text())
    assert record["run"] == str(runs / "slices_25")
    [further] = record["further_members"]
    assert further["run"] == str(runs / "next")
    assert further["weights_sha256"].keys() == {"WT"}
    assert further["weights_sha256"] != record["weights_sha256"]
    assert record["asked"]["flips"] == "x"
    assert len(record["cases"]) == 5
    changed = [
        (both, Options(), None),
        (both[:1], Options(flips="x"), "further_members"),
        ((*both, both[1]), Options(flips="x"), "further_members"),
        (both[::-1], Options(flips="x"), "weights_sha256"),
    ]
    for other, options, field in changed:
        words = (
            f"with another {field}" if field else "label maps with --flips x, expected --flips None"
        )
        with pytest.raises(DataError, match=f"{words}.*--overwrite"):
            predict_with(other, heads[0], tmp_path / "out", options)
    moved = shutil.copytree(runs / "next", tmp_path / "moved")
    same = members([runs / "slices_25", moved])
    assert "5 label maps" in predict_with(same, heads[0], tmp_path / "out", Options(flips="x"))


def test_a_record_from_before_there_were_ensembles_is_gone_on_with(heads, runs, tmp_path):
    run = RunFolder(runs / "next")
    predict_with(members([run.path]), heads[0], tmp_path)
    record = json.loads((tmp_path / "predictions.json").read_text())
    del record["further_members"], record["asked"]
    (tmp_path / "predictions.json").write_text(json.dumps(record))
    (tmp_path / FIRST).unlink()
    predict_with(members([run.path]), heads[0], tmp_path)
    assert (tmp_path / FIRST).exists()
    with pytest.raises(DataError, match="with another further_members"):
        predict_with(members([run.path, run.path]), heads[0], tmp_path)


@pytest.mark.parametrize("further", ["x", [1], {"run": "r"}])
def test_a_damaged_record_is_named(heads, runs, tmp_path, further):
    (tmp_path / "predictions.json").write_text(json.dumps({"further_members": further}))
    with pytest.raises(DataError, match=r"predictions\.json: found further_members = "):
        predict_with(members([runs / "next"]), heads[0], tmp_path)


def test_overwriting_leaves_no_map_of_the_earlier_predictions(heads, runs, tmp_path):
    one = members([runs / "slices_25"])
    asked = Options(probabilities=True, uncertainty=True)
    predict_with(one, heads[0], tmp_path, asked)
    (tmp_path / "probabilities/WT/mine.txt").write_text("mine")
    (tmp_path / "probabilities/mine.txt").write_text("mine")
    other = members([runs / "slices_75"])
    predict_with(other, heads[0], tmp_path, Options(uncertainty=True), overwrite=True)
    assert [path.name for path in (tmp_path / "probabilities/WT").iterdir()] == ["mine.txt"]
    assert len([*(tmp_path / "entropy/WT").iterdir()]) == 5
    assert read_map(tmp_path / FIRST).any()


def test_networks_are_loaded_once_and_no_members_maps_are_kept(heads, runs, tmp_path, monkeypatch):
    import tracemalloc

    loads = []
    load = RunFolder.networks

    def watched(run, variant):
        loads.append(run.path.name)
        return load(run, variant)

    monkeypatch.setattr(RunFolder, "networks", watched)
    many = members([runs / "slices_25", runs / "next", runs / "slices_25"])
    predict_with(many, heads[0], tmp_path)
    assert loads == ["slices_25", "next", "slices_25"]

    case = many[0].task.dataset.find_complete(heads[0])[0].cases[0]
    monkeypatch.setattr(
        type(many[0].task), "probabilities", lambda *_, **__: {"WT": np.zeros(10**6, "f4")}
    )
    monkeypatch.setattr(type(many[0].task), "on_own_grid", lambda self, maps, case: maps)
    decoded = decode(many, case)
    peaks = []
    for count in (2, 12):
        tracemalloc.start()
        pool(many[:1] * count, decoded)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 10**6  # ten maps more would be 40 MB


def test_the_next_case_is_read_while_one_is_predicted(heads, runs, tmp_path, monkeypatch):
    """And no more than that one, however many there are."""
    started, read = [threading.Event() for _ in range(5)], []

    def watched(all_members, case):
        read.append(case.id)
        started[len(read) - 1].set()
        return decode(all_members, case)

    def predicting(all_members, decoded, **options):
        [stored] = decoded.values()
        number = int(stored.id[-1])
        # Without a thread that reads ahead, nobody would set it.
        assert number == 4 or started[number + 1].wait(timeout=60)
        time.sleep(0.05)
        assert len(read) <= number + 2
        return pool(all_members, decoded, **options)

    monkeypatch.setattr(module, "decode", watched)
    monkeypatch.setattr(module, "pool", predicting)
    predict_with(members([runs / "slices_75"]), heads[0], tmp_path)
    assert len(read) == len({*read}) == 5


def test_a_label_map_that_cannot_be_written_concerns_its_case_alone(
    heads, runs, tmp_path, monkeypatch
):
    write = module._write_case

    def failing(task, pooled, *others):
        if pooled.case.id.endswith("2"):
            raise DataError(pooled.case.id, found="a full disk", expected="room", remedy="Wait.")
        write(task, pooled, *others)

    monkeypatch.setattr(module, "_write_case", failing)
    with pytest.raises(DataError, match=r"(?s)found 4 of 5 label maps.*00002: found a full disk"):
        predict_with(members([runs / "slices_75"]), heads[0], tmp_path)
    assert len([*tmp_path.glob("*.nii.gz")]) == 4


def test_another_precision_than_that_of_the_training(heads, tmp_path):
    """bfloat16 keeps 8 bits: a probability differs by about 1/256, and the weights are the same."""
    keras.utils.set_random_seed(0)
    changes = {"data.window": (16, 16, 4), "data.normalization": "z_score"}
    chosen = recipe.override(SLICES, changes)  # so that no sigmoid is saturated
    options = dict(chosen.model.options)
    network = registry.build(chosen.model.name, input_shape=(16, 16, 4), classes=1, **options)
    run = write_run(tmp_path / "run", network, chosen)
    for precision in ("float32", "mixed_bfloat16"):
        asked = Options(precision=precision, probabilities=True)
        predict_with(members([run.path]), heads[0], tmp_path / precision, asked)
    predict_with(members([run.path]), heads[0], tmp_path / "own", Options(probabilities=True))
    own, single, half = (
        read_map(tmp_path / place / "probabilities/WT" / FIRST)
        for place in ("own", "float32", "mixed_bfloat16")
    )
    np.testing.assert_array_equal(own, single)
    assert 0 < np.abs(half - single).max() < 0.05
    asked = Options(precision="mixed_bfloat16", probabilities=True)
    with pytest.raises(DataError, match="with --precision float32, expected --precision mixed_b"):
        predict_with(members([run.path]), heads[0], tmp_path / "float32", asked)


def other_regions(path):
    networks = {("WT",): constant(0.5), ("TC",): constant(0.5)}
    return write_run(path, networks)


def of_table(options):
    return recipe.override(SLICES, {"data.dataset": "volume_folders", "data.options": options})


def test_members_that_do_not_go_together_are_refused_in_one_line(heads, runs, tmp_path):
    first = runs / "slices_25"
    others = {
        other_regions(tmp_path / "two").path: r"the regions TC = .*, expected WT = ",
        runs / "image_25": r"the data set image_folders, expected brats as of .*slices_25:main",
    }
    for other, words in others.items():
        with pytest.raises(ValueError, match=f"{other.name}:main: found {words}") as error:
            predict_with(members([first, other]), heads[0], tmp_path / "out")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"channels": ("b", "a")}, "the channels b, a, expected a, b"),
        ({"label_codes": {"lesion": 2}, "region_codes": {"lesion": (2,)}}, "the regions"),
    ],
)
def test_volumes_of_other_channels_or_codes_are_not_mixed(runs, tmp_path, change, what):
    """A case's files are listed in the order of the first run's channels."""
    described = {
        "channels": ("a", "b"), "label_codes": {"lesion": 1}, "region_codes": {"lesion": (1,)},
    }  # fmt: skip
    made = []
    for name, options in (("one", described), ("two", {**described, **change})):
        networks = {("lesion",): constant(0.5, channels=2)}
        made.append(write_run(tmp_path / name, networks, of_table(options)).path)
    with pytest.raises(ValueError, match=f"two:main: found {what}"):
        predict_with(members(made), tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"flips": "xx"}, "--flips: found 'xx', expected axes"),
        ({"flips": "w"}, "--flips: found 'w', expected axes"),
        ({"precision": "half"}, "--precision: found 'half', expected one of: float32, mixed_b"),
        ({"threshold": 0.0}, "--threshold: found 0, expected a probability between"),
        ({"threshold": 1.0}, "--threshold: found 1, "),
        ({"threshold": float("nan")}, "--threshold: found nan, "),
        ({"overlap": 0.5}, "--overlap: found 0.5 for .*slices_25:main, whose networks see whole"),
    ],
)
def test_options_that_cannot_be_are_refused(heads, runs, tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        predict_with(members([runs / "slices_25"]), heads[0], tmp_path, Options(**options))


def test_options_that_do_not_fit_the_members_are_refused(heads, runs, tmp_path):
    with pytest.raises(ValueError, match=r"data\.overlap: found 1\.0"):
        predict_with(members([runs / "next_3d"]), heads[0], tmp_path, Options(overlap=1.0))
    with pytest.raises(ValueError, match=r"--flips: found z, expected axes of xy for .*image_25"):
        predict_with(members([runs / "image_25"]), tmp_path, tmp_path, Options(flips="xz"))
    one = members([runs / "next"])
    with pytest.raises(ValueError, match="--part: found --overwrite beside it"):
        predict_with(one, heads[0], tmp_path, part=Part(1, 2), overwrite=True)
    run = write_run(tmp_path / "run", constant(0.5))
    run.provenance_file.write_text("{}")
    with pytest.raises(DataError, match=r"found the folder of a run, .*RUN \.\.\. CASES OUT"):
        predict_with(members([runs / "next"]), run.path, heads[0])


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "a/b", "-1/3", "1/3/5", "¹/3"])
def test_parts_that_cannot_be_are_refused(text):
    with pytest.raises(ValueError, match=r"--part: found '.*', expected K/N"):
        Part.parse(text)


def test_a_region_that_names_no_folder_is_refused(tmp_path):
    named = recipe.override(IMAGES, {"data.classes": {"cup/disc": ()}})
    networks = {("cup/disc",): constant(0.5, channels=3)}
    run = write_run(tmp_path / "run", networks, named, fitted=AS_THEY_ARE)
    write_images(tmp_path / "data", 1)
    with pytest.raises(ValueError, match="found a region called 'cup/disc', expected a name"):
        predict_with(
            members([run.path]), tmp_path / "data", tmp_path / "out", Options(probabilities=True)
        )
    assert predict_with(members([run.path]), tmp_path / "data", tmp_path / "out")


def test_members_are_named_by_folder_and_variant(runs, tmp_path):
    found = members([runs / "next", f"{runs / 'next'}:other"])
    assert [member.variant for member in found] == ["main", "other"]
    given = members([runs / "next", f"{runs / 'next'}:main"], "other")
    assert [member.variant for member in given] == ["other", "main"]
    colon = shutil.copytree(runs / "next", tmp_path / "seed:1")
    assert [member.name for member in members([colon, f"{colon}:other"])] == [
        f"{colon}:main", f"{colon}:other"
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"variant: found 'ohter'.*Did you mean 'other'"):
        members([f"{runs / 'next'}:ohter"])


def test_all_trainings_of_a_run_are_members(heads, tmp_path):
    """Folds and seeds have run folders of their own in that of the run."""
    parts = {"fold0": 0.2, "fold1": 0.7}
    for name, probability in parts.items():
        write_run(tmp_path / "run" / name, constant(probability))
    run = RunFolder(tmp_path / "run")
    run.create(SLICES, {"main": Variant(SLICES, "main")}, {"parts": list(parts)})
    found = members([run.path])
    assert [member.run.path.name for member in found] == list(parts)
    done = predict_with(found, heads[0], tmp_path / "out", Options(probabilities=True))
    assert done.endswith("by the mean of 2 members")
    maps = read_map(tmp_path / "out/probabilities/WT" / FIRST)
    np.testing.assert_allclose(maps, in_window(0.45), atol=2**-14)
    shutil.rmtree(run.path / "fold1")
    with pytest.raises(DataError, match=r"fold1/run\.json: found no file"):
        members([run.path])


def test_the_maps_beside_label_maps_are_no_label_maps(heads, runs, tmp_path):
    one = members([runs / "next"])
    asked = Options(probabilities=True, uncertainty=True)
    predict_with(one, heads[0], tmp_path, asked)
    cases = one[0].task.dataset.find_complete(heads[0])[0].cases
    matched = match(tmp_path, cases, ".nii.gz")
    assert matched.paths == {case.id: tmp_path / f"{case.id}.nii.gz" for case in cases}
    assert (matched.errors, matched.surplus) == ([], [])


def test_the_command_line(heads, runs, tmp_path, capsys):
    out = tmp_path / "out"
    words = [runs / "slices_25", f"{runs / 'next'}:other", heads[0], out]
    options = ["--flips", "y", "--threshold", "0.3", "--part", "2/5", "--probabilities"]
    assert cli.main(["predict", *map(str, words), *options]) == 0
    assert "1 label maps of WT by the mean of 2 members (part 2 of 5)" in capsys.readouterr().out
    flair = heads[1][1] / 16
    expected = in_window((0.25 + mirrored(flair[CENTER], [1])) / 2)
    second = "BraTS2021_00001.nii.gz"
    found = read_map(out / "probabilities/WT" / second)
    np.testing.assert_allclose(found, expected, atol=2**-15)
    np.testing.assert_array_equal(read_map(out / second), EDEMA * (expected > 0.3))
    overlap = [str(runs / "next_3d"), str(heads[0]), str(tmp_path / "b"), "--overlap", "0.25"]
    assert cli.main(["predict", *overlap, "--part", "1/5", "--uncertainty"]) == 0
    assert (tmp_path / "b/entropy/WT" / FIRST).exists()
    assert cli.main(["predict", *overlap[:2], str(tmp_path / "c"), "--part", "6/5"]) == 1
    assert "--part: found '6/5'" in capsys.readouterr().err

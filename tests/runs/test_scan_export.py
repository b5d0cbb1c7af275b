"""An exported graph of scans gives, from file to label map, what `keras-medseg predict` writes."""

import json
import re
from pathlib import Path

import keras
import nibabel
import numpy as np
import pytest
import tensorflow as tf

from keras_medseg import cli, recipe
from keras_medseg.data.formats import image_files
from keras_medseg.inference import graph_functions, scan_plan
from keras_medseg.runs import scan_export
from keras_medseg.runs.members import members
from keras_medseg.runs.scan_export import export_scans
from keras_medseg.tasks import task_of

from .. import known_runs
from ..known_runs import AS_THEY_ARE, IMAGES, PATCHES, SLICES

PAGE = Path(__file__).parents[2] / "docs/export.md"
FACTS = {
    "datasets": ["BraTS2021"], "data": "phantom", "phantom": True, "fingerprint": "0", "test": [],
}  # fmt: skip
MONAI_KEYS = {
    "type", "format", "modality", "num_channels", "spatial_shape", "dtype", "value_range",
    "is_patch_data", "channel_def",
}  # fmt: skip


def wavy(channels=4, outputs=1, dimensions=2):
    """A network whose sigmoids lie on both sides of 1/2."""
    layer = {2: keras.layers.Conv2D, 3: keras.layers.Conv3D}[dimensions]
    image = keras.Input((*[None] * dimensions, channels))
    keras.utils.set_random_seed(1)
    probable = layer(outputs, 3, padding="same", activation="sigmoid")
    return keras.Model(image, probable(image))


def call_of_tensorflow_serving(folder, request):
    """What the server does with a request: columns become tensors, rows are stacked to columns."""
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    body = json.loads(json.dumps(request))
    specs = signature.structured_input_signature[1]
    columns = {name: [row[name] for row in body["instances"]] for name in specs}
    found = signature(**{k: tf.constant(v, specs[k].dtype) for k, v in columns.items()})
    return {name: tensor.numpy() for name, tensor in found.items()}


def test_from_files_to_label_map_by_the_signature_of_tensorflow_serving(tmp_path):
    """Two networks, nested regions, files in RAS, the codes of BraTS 2021 (enhancing is 4).

    The network of WT sees 1/16 of FLAIR in the next voxel, that of ET the probability 3/4.
    """
    known_runs.write_volumes(tmp_path / "cases", 2)
    networks = {("WT",): known_runs.next_voxel(), ("ET",): known_runs.constant(0.75)}
    run = known_runs.write_run(tmp_path / "run", networks, facts=FACTS)
    command = ["export", str(run.path), str(tmp_path / "out"), "--cases", str(tmp_path / "cases")]
    assert cli.main(command) == 0
    assert (
        cli.main(["predict", str(run.path), str(tmp_path / "cases"), str(tmp_path / "maps")]) == 0
    )
    instances = []
    for number in range(2):
        name = f"cases/BraTS2021_{number:05}/BraTS2021_{number:05}"
        paths = [tmp_path / f"{name}_{channel}.nii.gz" for channel in ("flair", "t1", "t1ce", "t2")]
        volumes = [np.asarray(nibabel.load(path).dataobj)[::-1, ::-1] for path in paths]
        instances.append({"image": np.stack(volumes).tolist()})
    found = call_of_tensorflow_serving(tmp_path / "out/1", {"instances": instances})
    assert found["labels"].shape == (2, 1, *known_runs.SHAPE)
    assert found["probabilities"].shape == (2, 2, *known_runs.SHAPE)
    for number in range(2):
        written = nibabel.load(tmp_path / f"maps/BraTS2021_{number:05}.nii.gz")
        expected = np.asarray(written.dataobj)[::-1, ::-1]
        np.testing.assert_array_equal(found["labels"][number, 0], expected, strict=True)
        assert set(np.unique(expected)) == {0, 4}
    described = json.loads((tmp_path / "out/model.json").read_text())
    require_described(described)
    assert [entry["case"] for entry in described["keras_medseg"]["compared"]] == [
        "noise", "BraTS2021_00000", "BraTS2021_00001"
    ]  # fmt: skip
    assert all(entry["different"] == 0 for entry in described["keras_medseg"]["compared"])
    outputs = described["network_data_format"]["outputs"]
    assert outputs["labels"]["channel_def"]["4"] == "enhancing"
    assert outputs["probabilities"]["channel_def"] == {"0": "WT", "1": "ET"}


def require_described(described):
    """The keys of MONAI's bundles that concern this package, and true checksums."""
    wanted = {
        "version", "numpy_version", "required_packages_version", "task", "description", "authors",
        "copyright", "network_data_format",
    }  # fmt: skip
    assert wanted <= set(described)
    for side in described["network_data_format"].values():
        for tensor in side.values():
            assert set(tensor) == MONAI_KEYS
            assert tensor["num_channels"] in (1, len(tensor["channel_def"]))


def test_checksums_are_those_of_the_graph(tmp_path):
    run = known_runs.write_run(tmp_path / "run", known_runs.constant(0.5), facts=FACTS)
    export_scans(str(run.path), tmp_path / "out")
    described = json.loads((tmp_path / "out/model.json").read_text())["keras_medseg"]
    assert described["graph"]["file"] == "1"
    for name, facts in described["graph"]["files"].items():
        assert scan_export._checksums(tmp_path / "out")[name] == facts
    assert "1/saved_model.pb" in described["graph"]["files"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"1", "model.json", "card.md"}
    assert not list(tmp_path.glob(".export-*"))


@pytest.mark.parametrize("normalization", ["z_score", "min_max", "window_min_max", "none"])
def test_slices_of_scans_that_are_larger_and_smaller_than_the_window(tmp_path, normalization):
    """Two scans at once, each by its own statistics; some intensities are negative."""
    chosen = recipe.override(SLICES, {"data.normalization": normalization})
    task = task_of(recipe.override(chosen, {"train.batch_size": 3, "model.targets": (("WT",),)}))
    networks = {("WT",): wavy()}
    graph = task.scan_graph(networks, "BraTS2021")
    run = tf.function(graph_functions.function_of(graph))
    generator = np.random.default_rng(0)
    for shape in ((11, 5, 8), (7, 9, 3)):
        image = (
            generator.integers(-50, 300, (2, *shape, 4))
            * np.array([1, 5])[:, None, None, None, None]
        )
        image[generator.random(image.shape[:-1]) < 0.3] = 0
        raws = [task.dataset.of_array(one, np.diag([-1.0, -1, 1, 1])) for one in image]
        inputs = np.concatenate([task.scan_inputs(raw)["image"] for raw in raws])
        found = {name: tensor.numpy() for name, tensor in run(tf.constant(inputs)).items()}
        for number, raw in enumerate(raws):
            case = scan_export.StoredCase.from_arrays(
                scan_export.Case("a", "BraTS2021", (), None, "a"), raw
            )
            maps = task.probabilities(networks, case)
            np.testing.assert_allclose(found["probabilities"][number, 0], maps["WT"], atol=1e-6)
            expected = task.label_map(maps, case)
            assert np.mean(found["labels"][number, 0] != expected) < 1e-3
            assert 0 < np.count_nonzero(expected) < expected.size


@pytest.mark.parametrize(
    "changes",
    [
        {"data.fit": "crop"},
        {"data.fit": "pad", "data.smoothing_px": 1.0, "data.equalization": True},
        {"data.normalization": "mean_std_per_image"},
    ],
)
def test_an_image_of_any_size(tmp_path, changes):
    """Compared by the export itself, on noise, and on pictures of two sizes."""
    run = known_runs.write_run(
        tmp_path / "run",
        {("polyp",): wavy(3)},
        recipe.override(IMAGES, changes),
        fitted=AS_THEY_ARE,
        facts={**FACTS, "datasets": ["polyps"]},
    )
    known_runs.write_images(tmp_path / "images", 2)
    pixels = np.random.default_rng(9).integers(60, 90, (9, 50, 3), dtype=np.uint8)
    image_files.write(tmp_path / "images/images/7.png", pixels)
    lines = export_scans(str(run.path), tmp_path / "out", cases=tmp_path / "images")
    assert re.search(r"3 cases: labels differ in 0 of 3,010 \([1-9](\d|,)* labelled\)", lines[-1])
    described = json.loads((tmp_path / "out/model.json").read_text())
    assert described["network_data_format"]["inputs"]["image"]["dtype"] == "uint8"
    assert described["network_data_format"]["outputs"]["labels"]["value_range"] == [0, 255]
    assert described["keras_medseg"]["before"] == []


@pytest.mark.parametrize("normalization", ["z_score", "min_max", "none"])
def test_patches_take_the_numbers_of_the_scan(tmp_path, normalization):
    chosen = recipe.override(PATCHES, {"data.normalization": normalization})
    run = known_runs.write_run(tmp_path / "run", {("WT",): wavy(dimensions=3)}, chosen, facts=FACTS)
    lines = export_scans(str(run.path), tmp_path / "out")
    assert re.fullmatch(r"noise: probabilities differ by at most \S+", lines[-1])
    described = json.loads((tmp_path / "out/model.json").read_text())
    image = described["network_data_format"]["inputs"]["image"]
    assert image["is_patch_data"]
    assert image["spatial_shape"] == [8, 6, 4]
    assert ("center" in described["network_data_format"]["inputs"]) == (normalization != "none")
    assert "labels" not in described["network_data_format"]["outputs"]
    with pytest.raises(ValueError, match="takes patches, expected a graph of whole scans"):
        export_scans(str(run.path), tmp_path / "other", cases=tmp_path)


def test_what_is_not_in_the_graph_is_named(tmp_path):
    """Resampling and components of slices; the sliding window, mirrors and merging of patches."""
    resampled = {"data.options": {"spacing_mm": (2.0, 2, 3)}, "predict.smallest_component": 0.1}
    task = task_of(recipe.override(SLICES, resampled))
    graph = task.scan_graph({("WT",): wavy()}, "BraTS2021")
    assert [step.name for step in graph.before] == ["orientation", "resampling"]
    assert [step.name for step in graph.after] == ["components", "resampling", "orientation"]
    assert "voxels of 2 x 2 x 3 mm" in graph.before[1].how
    assert "less than 0.1 of the voxels of the largest one" in graph.after[0].how
    task = task_of(recipe.override(PATCHES, {"data.test_time_flips": True}))
    graph = task.scan_graph({("WT",): wavy(dimensions=3)}, "BraTS2021")
    assert [step.name for step in graph.before] == ["orientation", "box", "sliding window"]
    assert "patches of 8 x 6 x 4 voxels that overlap by 0.5" in graph.before[2].how
    assert [step.name for step in graph.after] == [
        "sliding window", "mirrors", "merging", "box", "orientation"
    ]  # fmt: skip


def test_the_rule_of_merging_in_words():
    regions = {"WT": (1, 2, 3), "TC": (1, 3), "RC": (4,)}
    merging = scan_plan.Merging(regions, {"WT": 2, "TC": 1, "RC": 4}, {1: 1, 2: 2, 4: 3})
    assert scan_plan.merging_words({("WT", "TC"): None, ("RC",): None}, merging) == (
        "later rules write over earlier ones: WT is 2 where it is above 0.5 and not less likely "
        "than RC; TC is 1 where it is above 0.5 within WT; RC is 3 where it is above 0.5 and not "
        "less likely than WT"
    )
    assert (
        scan_plan.merging_words(
            {("a",): None, ("b",): None},
            scan_plan.Merging({"a": (2,), "b": (1,)}, {}, {1: 1, 2: 2}),
        )
        == "the most likely region wins where its probability is above 0.5; codes a: 2, b: 1"
    )


@pytest.mark.parametrize("wrong", ["labels", "probabilities", "shape"])
def test_a_graph_that_computes_something_else_is_refused(tmp_path, monkeypatch, wrong):
    run = known_runs.write_run(tmp_path / "run", known_runs.constant(0.75), facts=FACTS)
    real = graph_functions.open_graph

    def altered(path):
        serve = real(path)
        name, change = {
            "labels": ("labels", lambda y: y * 0),
            "probabilities": ("probabilities", lambda y: y * 1.001),
            "shape": ("probabilities", lambda y: y[..., :0]),
        }[wrong]
        return lambda arrays: {**(y := serve(arrays)), name: change(y[name])}

    monkeypatch.setattr(graph_functions, "open_graph", altered)
    with pytest.raises(ValueError, match="Report it, with the weights"):
        export_scans(str(run.path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_refusals_in_one_sentence(tmp_path, capsys):
    run = known_runs.write_run(tmp_path / "run", known_runs.constant(0.75), facts=FACTS)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    network = str(next(run.path.rglob("model.keras")))
    for words, message in (
        (
            [str(run.path), str(tmp_path / "full")],
            "found a folder that is not empty, expected a new",
        ),
        ([str(run.path), str(tmp_path / "a.onnx")], "found the name of a file, expected that of a"),
        (["phantom/none", str(tmp_path / "b")], "found no such weights, run folder or archive"),
        ([network, str(tmp_path / "b"), "--cases", "c"], "--cases: found one beside a network"),
    ):
        assert cli.main(["export", *words]) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    with pytest.raises(
        ValueError, match=r"found 2 trainings \(folds, seeds\), expected one. Name it:"
    ):
        scan_export._one_member("run", members([run.path, run.path]))
    assert not (tmp_path / "b").exists()


def test_another_backend_is_refused(tmp_path, monkeypatch):
    run = known_runs.write_run(tmp_path / "run", known_runs.constant(0.75), facts=FACTS)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="KERAS_BACKEND: found 'jax', expected 'tensorflow'"):
        export_scans(str(run.path), tmp_path / "out")


EVERY_STEP = {
    "slices": (recipe.override(SLICES, {"data.normalization": "z_score"}), 4, 2, "BraTS2021"),
    "patches": (recipe.override(PATCHES, {"data.normalization": "z_score"}), 4, 3, "BraTS2021"),
    "images": (
        recipe.override(
            IMAGES, {"data.fit": "pad", "data.smoothing_px": 1.0, "data.equalization": True}
        ),
        3, 2, "polyps",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", EVERY_STEP)
def test_every_step_by_onnx_runtime(tmp_path, kind):
    """The export itself compares, here on noise that is larger and smaller than the window."""
    chosen, channels, dimensions, release = EVERY_STEP[kind]
    run = known_runs.write_run(
        tmp_path / "run",
        {chosen.model.targets[0]: wavy(channels, dimensions=dimensions)},
        chosen,
        fitted=AS_THEY_ARE,
        facts={**FACTS, "datasets": [release]},
    )
    lines = export_scans(str(run.path), tmp_path / "out", "onnx")
    assert re.search(r"differ by at most \d(\.\d+)?e-0[678]$|differ by at most 0$", lines[-1])
    facts = json.loads((tmp_path / "out/model.json").read_text())["keras_medseg"]["graph"]
    assert (facts["format"], facts["file"], [*facts["files"]]) == (
        "onnx", "model.onnx", ["model.onnx"]
    )  # fmt: skip


@pytest.mark.slow
def test_the_script_of_the_page_writes_what_predict_writes(tmp_path, monkeypatch, capsys):
    """The shipped weights by ONNX Runtime, from files to file, by the commands of the page."""
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text()
    for line in re.findall(r"^keras-medseg (phantom|export) (.*brain.*)$", page, re.MULTILINE):
        assert cli.main(" ".join(line).split()) == 0, capsys.readouterr().err
    scripts = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(scripts[0].splitlines()) <= 17
    assert "keras_medseg" not in scripts[0]
    names: dict = {}
    exec(scripts[0], names)
    assert cli.main(["predict", "phantom/brats2021-small", "brains", "maps"]) == 0
    written = nibabel.load("maps/BraTS2021_00000.nii.gz")
    own = nibabel.load("label_map.nii.gz")
    expected = np.asarray(written.dataobj)
    assert len(np.unique(expected)) > 2
    np.testing.assert_array_equal(np.asarray(own.dataobj), expected, strict=True)
    np.testing.assert_array_equal(own.affine, written.affine)
    # The same by the SavedModel of the page's second script.
    assert cli.main(["export", "phantom/brats2021-small", "served"]) == 0
    exec(scripts[1].replace("exported", "served"), names)
    np.testing.assert_array_equal(np.asarray(own.dataobj), names["labels"][0, 0])

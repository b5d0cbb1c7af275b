"""From a folder to scores, on a small synthetic data set with the recipe of a small network."""

import gzip
import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from keras_medseg import recipe, registry
from keras_medseg.data.datasets.brats import Brats
from keras_medseg.data.formats import nifti
from keras_medseg.errors import DataError
from keras_medseg.evaluation.score_folder import score_folders
from keras_medseg.inference import postprocess
from keras_medseg.phantoms.brats import write_brats
from keras_medseg.phantoms.folder import is_phantom
from keras_medseg.runs import experiment, report, run_folder, steps
from keras_medseg.runs.members import members
from keras_medseg.runs.predict_folder import predict_with
from keras_medseg.runs.run_folder import RunFolder, Variant
from keras_medseg.tasks import task_of

from ..recipes import small_recipe

TARGETS = {"model.targets": (("WT", "TC"), ("ET",))}
RECIPE = small_recipe(TARGETS)
SHAPE = (60, 60, 39)
NAMES = ["variant", "case", "group", "region"]


def begin(path, cohort, recipes, base=RECIPE, **further):
    """A run folder of these recipes, as `experiment.run` makes it."""
    run = RunFolder(path)
    facts = {
        "data": cohort.name,
        "fingerprint": cohort.store.fingerprint,
        "training": list(cohort.training),
        "validation": list(cohort.validation),
        **further,
    }
    run.create(base, steps.fit_variants(recipes, cohort), facts)
    return run


def scored(predictions, folder, regions=()):
    """Scores of one folder of label maps against the cases of another."""
    cases = Brats().find_annotations(folder).cases
    folders = {predictions.name: predictions}
    return score_folders(folders, cases, Brats(), regions=regions).table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("phantom")
    write_brats(path, cases=4, layout="BraTS2020", shape=SHAPE)
    return path


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    request = experiment.Request(out, folder, "train", "the command", store=out / "store")
    assert experiment.run(experiment.of_recipe(RECIPE), request)
    run = RunFolder(out)
    return run, report.open_cohort(run), run.scores()


def test_a_run_goes_from_folder_to_scores(finished):
    run, cohort, scores = finished
    assert len(cohort.validation) == 1  # 30 % of 4 cases, rounded
    assert set(scores["case"]) == set(cohort.validation)
    assert list(scores["region"]) == ["WT", "TC", "ET"]
    assert list(scores["group"]) == [cohort.store.cases[cohort.validation[0]].group] * 3
    assert scores["dice"].between(0, 1).all()
    pd.testing.assert_frame_equal(pd.read_csv(run.path / "scores.csv"), scores, check_exact=True)


def test_a_single_training_lies_in_the_run_folder_itself(finished):
    """Without columns and entries of folds and seeds, and no run of several takes its place."""
    run, _, scores = finished
    assert run.parts == (run,)
    assert {"parts", "seed", "fold", "splits"}.isdisjoint(run.run)
    assert {"seed", "fold"}.isdisjoint(scores)
    [split] = json.loads(run.splits_file.read_text())
    assert split == {"train": run.run["training"], "val": run.run["validation"]}
    assert "seeds" not in run.report_file.read_text()
    message = r"a run of a single training, expected one of 2 trainings \(seed0, seed1\), as asked"
    with pytest.raises(DataError, match=message):
        run.create(run.recipe, run.variants, {"parts": ["seed0", "seed1"]})


def test_a_users_own_run_has_all_that_a_papers_run_has(finished):
    """Provenance, tables with intervals, figures and a report that speaks of no paper."""
    run, _, scores = finished
    [command] = run.provenance()["commands"]
    assert command["command"] == "the command"
    assert command["devices"]
    table = pd.read_csv(run.path / "table.csv")
    assert set(table["region"]) == {"WT", "TC", "ET"}
    assert {"measured", "ci_low", "ci_high", "n"} <= set(table.columns)
    [dice] = table.query("region == 'WT' and metric == 'dice'")["measured"]
    assert dice == pytest.approx(100 * scores.query("region == 'WT'")["dice"].mean())
    page = run.report_file.read_text()
    assert "not retrained" not in page
    assert "the paper" not in page.lower()
    for name in ("learning_curves", "dice", "case_only"):
        assert run.figure(name).stat().st_size > 5_000
    for name in ("networks.csv", "log.csv", "table.md"):
        assert (run.path / name).exists()


def test_a_test_side_is_scored_and_the_validation_side_steers(folder, tmp_path, monkeypatch):
    """Four patients: two to learn from, one whose loss chooses the epoch, one that is scored."""
    seen = {}
    fit = steps.fit.fit

    def watched(chosen, targets, training, validation, *more, **options):
        seen.update(training=set(training.case_ids), validation=set(validation.case_ids))
        return fit(chosen, targets, training, validation, *more, **options)

    monkeypatch.setattr(steps.fit, "fit", watched)
    sides = {"data.validation": 0.25, "data.test": 0.25, "train.keep": "best"}
    chosen = small_recipe({"model.targets": (("WT",),), **sides})
    request = experiment.Request(tmp_path, folder, "train", "c", store=tmp_path / "store")
    assert experiment.run(experiment.of_recipe(chosen), request)
    run = RunFolder(tmp_path)
    cohort = report.open_cohort(run)
    assert [len(side) for side in (cohort.training, cohort.validation, cohort.test)] == [2, 1, 1]
    assert seen == {"training": set(cohort.training), "validation": set(cohort.validation)}
    assert set(run.scores()["case"]) == set(cohort.test) == set(cohort.scored)
    assert run.run["test"] == list(cohort.test)
    assert not {*cohort.training, *cohort.validation} & {*cohort.test}
    page = run.report_file.read_text()
    assert "2 training cases; 1 validation case to steer; scored on 1 test case" in page


def test_run_folders_of_earlier_versions_without_groups_and_test_side_are_read(finished, tmp_path):
    run, cohort, scores = finished
    earlier = shutil.copytree(run.path, tmp_path / "run", ignore=shutil.ignore_patterns("store"))
    scores.drop(columns="group").to_csv(earlier / "scores.csv", index=False)
    assert "test" not in RunFolder(earlier).run
    assert report.open_cohort(RunFolder(earlier)).scored == cohort.validation
    experiment.remake_report(earlier)
    table = pd.read_csv(earlier / "table.csv")
    pd.testing.assert_frame_equal(table, pd.read_csv(run.path / "table.csv"))
    again = steps.score_variant(RunFolder(earlier), "main", cohort)
    pd.testing.assert_frame_equal(again, scores, check_exact=True)


def test_what_the_networks_cost_names_their_training(finished):
    run, _, _ = finished
    costs = pd.read_csv(run.path / "networks.csv")
    logs = [pd.read_csv(path) for path in (run.path / "training").glob("*/log.csv")]
    assert costs["networks"].tolist() == [2]
    assert costs["training_epochs"].tolist() == [2]
    assert costs["training_seconds"].tolist() == pytest.approx(
        [sum(x["seconds"].sum() for x in logs)]
    )
    sizes = [network.count_params() for network in run.networks("main").values()]
    assert costs["largest_network"].tolist() == [max(sizes)] != [min(sizes)]
    assert costs["parameters"].tolist() == [sum(sizes)]


def test_each_networks_own_map_has_its_scores_once(finished):
    """Also where a killed run wrote them, but not yet those of the label map."""
    run, _, scores = finished
    further = run.further_scores()
    assert further[NAMES].equals(scores[NAMES])
    whole = (scores["region"] == "WT").to_numpy()
    # The largest region loses nothing when the maps are merged.
    assert (further["dice_alone"][whole] == scores["dice"][whole]).all()
    named = further.iloc[0][["variant", "case", "group"]].to_dict()
    steps._add_further(run, named, further[["region", "dice_alone"]].to_dict("records"))
    pd.testing.assert_frame_equal(run.further_scores(), further, check_exact=True)


def test_label_maps_overlay_the_input(finished, folder):
    run, cohort, _ = finished
    name = cohort.validation[0]
    written = nib.load(run.path / "predictions" / "main" / f"{name}.nii.gz")
    source = nib.load(next(folder.rglob(f"{name}_flair.nii*")))
    assert written.shape == source.shape == SHAPE
    np.testing.assert_array_equal(written.affine, source.affine)
    assert written.get_data_dtype() == np.uint8
    assert set(np.unique(written.dataobj)) <= {0, 1, 2, 4}


def test_finished_cases_are_not_predicted_again(finished, capsys):
    run, cohort, scores = finished
    again = steps.score_variant(run, "main", cohort)
    assert "predicting" not in capsys.readouterr().out
    pd.testing.assert_frame_equal(again, scores, check_exact=True)


def test_predictions_are_scored_again_from_their_files(finished, folder):
    """The scores of a run follow from its NIfTI files alone."""
    run, cohort, scores = finished
    held_out = folder.parent / f"held-out-{folder.name}"
    held_out.mkdir()
    name = cohort.validation[0]
    case = next(path for path in folder.rglob(name) if path.is_dir())
    (held_out / name).symlink_to(case)
    # It tells the patient, as it did when the run began.
    (held_out / "name_mapping.csv").symlink_to(next(folder.rglob("name_mapping.csv")))
    again = scored(run.path / "predictions" / "main", held_out)
    pd.testing.assert_frame_equal(again, scores, check_exact=True)


def test_unlabelled_cases_are_predicted(finished, folder, tmp_path):
    run, cohort, _ = finished
    case = next(path for path in folder.rglob(cohort.validation[0]) if path.is_dir())
    unlabelled = tmp_path / "new" / case.name
    unlabelled.mkdir(parents=True)
    for path in case.glob("*"):
        if "seg" not in path.name:
            (unlabelled / path.name).write_bytes(path.read_bytes())
    done = predict_with(members([run.path]), tmp_path / "new", tmp_path / "out")
    assert done.endswith("1 label maps of WT+TC, ET by the variant main")
    one = nib.load(tmp_path / "out" / f"{case.name}.nii.gz")
    other = nib.load(run.path / "predictions" / "main" / f"{case.name}.nii.gz")
    np.testing.assert_array_equal(one.dataobj, other.dataobj)
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == [f"{case.name}.nii.gz", "predictions.json"]


def test_a_variant_predicts_as_its_own_recipe_reads(finished, folder, tmp_path):
    """One with a window of 8 slices finds nothing outside of it; the run's base recipe does.

    Its name has a hyphen and it has no networks of its own, and all three regions are there."""
    run, cohort, _ = finished
    shutil.copytree(run.path / "training", tmp_path / "copy")
    thin = small_recipe({**TARGETS, "data.window": (48, 48, 8)})
    other = begin(tmp_path / "run", cohort, {"thin-window": thin})
    (tmp_path / "copy").rename(tmp_path / "run" / "training")
    for trained in list((tmp_path / "run" / "training").iterdir()):
        trained.rename(trained.with_name(trained.name.replace("main", "thin-window")))
    predict_with(members([other.path]), folder, tmp_path / "out")
    name = f"{cohort.validation[0]}.nii.gz"
    found = np.asarray(nib.load(tmp_path / "out" / name).dataobj)
    usual = np.asarray(nib.load(run.path / "predictions" / "main" / name).dataobj)
    first = (found.shape[2] - 8) // 2
    np.testing.assert_array_equal(found[:, :, first : first + 8], usual[:, :, first : first + 8])
    outside = np.r_[:first, first + 8 : found.shape[2]]
    assert not found[:, :, outside].any()
    assert usual[:, :, outside].any()


def test_a_variant_without_networks_of_its_own_predicts_with_those_it_names(
    finished, folder, tmp_path
):
    run, cohort, _ = finished
    cleaned = small_recipe({**TARGETS, "predict.smallest_component": 1.0})
    other = begin(tmp_path / "run", cohort, {"main": RECIPE, "cleaned": cleaned})
    shutil.copytree(run.path / "training", tmp_path / "run" / "training")
    assert other.variant("cleaned").trained_as == "main"
    own, shared = (other.network(name, ("ET",)).get_weights() for name in ("main", "cleaned"))
    assert all(np.array_equal(*pair) for pair in zip(own, shared, strict=True))
    assert other.log("cleaned", ("ET",)).equals(run.log("main", ("ET",)))
    predict_with(members([other.path], "cleaned"), folder, tmp_path / "out")
    name = f"{cohort.validation[0]}.nii.gz"
    case = cohort.store.cases[cohort.validation[0]]
    found = Brats().read_labels(tmp_path / "out" / name, case)
    usual = Brats().read_labels(run.prediction("main", case.id), case)
    np.testing.assert_array_equal(found, postprocess.drop_small_components(usual, 1.0))


def test_a_network_that_is_missing_is_not_left_out(finished, folder, tmp_path):
    shutil.copytree(finished[0].path, tmp_path / "run")
    (tmp_path / "run" / "training" / "main-ET" / "model.keras").unlink()
    with pytest.raises(DataError, match=r"main-ET/model\.keras"):
        predict_with(members([tmp_path / "run"]), folder, tmp_path / "out")


def test_a_case_that_cannot_be_read_does_not_keep_the_others_back(finished, folder, tmp_path):
    run, cohort, _ = finished
    shutil.copytree(folder, tmp_path / "new")
    damaged = next((tmp_path / "new").rglob(f"{cohort.validation[0]}_t1ce.nii*"))
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-20])
    with pytest.raises(DataError, match=rf"(?s)3 of 4 label maps.*{damaged.name}"):
        predict_with(members([run.path]), tmp_path / "new", tmp_path / "out")
    written = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.gz")}
    assert len(written) == 3
    damaged.write_bytes(whole)
    predict_with(members([run.path]), tmp_path / "new", tmp_path / "out")
    again = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.gz")}
    assert len(again) == 4
    assert {name: again[name] for name in written} == written


def test_a_case_without_a_modality_does_not_keep_the_others_back(finished, folder, tmp_path):
    run, cohort, _ = finished
    shutil.copytree(folder, tmp_path / "new")
    next((tmp_path / "new").rglob(f"{cohort.validation[0]}_t1ce.nii*")).unlink()
    with pytest.raises(DataError, match=rf"(?s)3 of 4 label maps.*no {cohort.validation[0]}_t1ce"):
        predict_with(members([run.path]), tmp_path / "new", tmp_path / "out")
    assert len([*(tmp_path / "out").glob("*.gz")]) == 3


def test_a_folder_of_other_predictions_is_refused_or_overwritten(finished, folder, tmp_path):
    run, cohort, _ = finished
    out = tmp_path / "out"
    cleaned = small_recipe({**TARGETS, "predict.smallest_component": 1.0})
    other = begin(tmp_path / "run", cohort, {"main": RECIPE, "cleaned": cleaned})
    shutil.copytree(run.path / "training", tmp_path / "run" / "training")
    predict_with(members([run.path]), folder, out)
    record = json.loads((out / "predictions.json").read_text())
    assert record["run"] == str(run.path.resolve())
    assert record["variant"] == "main"
    assert set(record["weights_sha256"]) == {"+".join(names) for names in RECIPE.model.targets}
    assert record["options"]["predict"]["smallest_component"] == 0.0
    assert len(record["cases"]) == 4
    before = (out / record["cases"][0]).stat().st_mtime_ns
    predict_with(members([other.path], "main"), folder, out)  # equal weights and options
    with pytest.raises(DataError, match=r"found label maps .* another variant, .*--overwrite"):
        predict_with(members([other.path], "cleaned"), folder, out)
    assert (out / record["cases"][0]).stat().st_mtime_ns == before
    (out / "old.nii.gz").write_bytes(b"another tool's")
    predict_with(members([other.path], "cleaned"), folder, out, overwrite=True)
    assert (out / record["cases"][0]).stat().st_mtime_ns > before
    assert (out / "old.nii.gz").exists()
    (out / "predictions.json").unlink()
    with pytest.raises(DataError, match=r"and no predictions\.json that says how"):
        predict_with(members([run.path]), folder, out)


def test_a_network_that_was_not_trained_is_named(finished, tmp_path):
    run = begin(tmp_path, finished[1], {"main": RECIPE})
    with pytest.raises(DataError, match=r"model\.keras.*Train first"):
        run.network("main", ("WT",))


def test_a_network_is_loaded_with_its_main_output_or_with_all(finished, tmp_path):
    run = begin(tmp_path, finished[1], {"main": RECIPE})
    network = registry.build("mtds_r2unet", input_shape=(16, 16, 4), filters=4)
    folder = run.training("main", ("WT",))
    folder.mkdir(parents=True)
    network.save(folder / "model.keras")
    x = np.random.default_rng(0).random((1, 16, 16, 4), "float32")
    whole, *auxiliary = network(x)
    found = run.network("main", ("WT",))(x)
    np.testing.assert_array_equal(found, whole)
    every = run.network("main", ("WT",), auxiliary=True)(x)
    assert len(every) == 1 + len(auxiliary) == 4
    np.testing.assert_array_equal(every[3], auxiliary[2])


def test_small_components_are_dropped_where_the_recipe_says_so(finished):
    """The same network on the same case: what is left is what hangs together with the largest."""
    run, cohort, _ = finished
    networks = run.networks("main")
    case = cohort.store.cases[cohort.validation[0]]
    raw = task_of(RECIPE).predict(networks, case)
    cleaned = task_of(small_recipe({"predict.smallest_component": 1.0})).predict(networks, case)
    np.testing.assert_array_equal(cleaned, postprocess.drop_small_components(raw, 1.0))


def test_what_cannot_be_predicted_with_is_named(finished, folder, tmp_path):
    run = finished[0]
    with pytest.raises(ValueError, match=r"variant: found 'other', expected one of: main"):
        predict_with(members([run.path], "other"), folder, tmp_path)
    with pytest.raises(DataError, match=r"run\.json: found no file.*that a training wrote into"):
        predict_with(members([tmp_path]), folder, tmp_path)


def test_a_run_folder_belongs_to_one_recipe_and_one_set_of_cases(finished, tmp_path):
    _, cohort, _ = finished
    longer = small_recipe({**TARGETS, "train.epochs": 3})
    recipes = {"main": RECIPE, "longer": longer}
    begin(tmp_path, cohort, recipes)
    begin(tmp_path, cohort, recipes)
    with pytest.raises(DataError, match=r"train\.epochs = 1.*expected 2"):
        begin(tmp_path, cohort, recipes, base=small_recipe({**TARGETS, "train.epochs": 2}))
    changed = {**recipes, "longer": small_recipe({**TARGETS, "train.epochs": 4})}
    with pytest.raises(DataError, match=r"train\.epochs of longer = 3, expected 4"):
        begin(tmp_path, cohort, changed)
    with pytest.raises(DataError, match=r"variants = \['main', 'longer'\], expected \['main'\]"):
        begin(tmp_path, cohort, {"main": RECIPE})
    swapped = replace(cohort, training=cohort.validation, validation=cohort.training)
    with pytest.raises(DataError, match="run with training = "):
        begin(tmp_path, swapped, recipes)
    tested = begin(tmp_path / "tested", cohort, recipes, test=["a"])
    with pytest.raises(DataError, match=r"run with test = \['a'\], expected None"):
        begin(tested.path, cohort, recipes)
    other = replace(cohort, store=SimpleNamespace(fingerprint="0" * 64))
    with pytest.raises(DataError, match=f"expected '{'0' * 64}'"):
        begin(tmp_path, other, recipes)


def test_a_run_whose_data_moved_is_the_same_run(finished, tmp_path):
    """Cases are told by their voxels, not by where they lie."""
    cohort = finished[1]
    facts = {"data": cohort.name, "fingerprint": cohort.store.fingerprint}
    variants = {"main": Variant(RECIPE, "main")}
    RunFolder(tmp_path).create(RECIPE, variants, {**facts, "data_folder": "a", "store": "b"})
    again = RunFolder(tmp_path)
    again.create(RECIPE, variants, {**facts, "data_folder": "c", "store": "d"})
    assert (again.run["data_folder"], again.run["store"]) == ("c", "d")


def test_a_run_of_another_version_of_the_package_is_refused(finished, tmp_path, monkeypatch):
    _, cohort, _ = finished
    begin(tmp_path, cohort, {"main": RECIPE})
    monkeypatch.setattr(run_folder, "__version__", "99.0")
    with pytest.raises(DataError, match=r"a run with keras_medseg = .*expected '99\.0'"):
        begin(tmp_path, cohort, {"main": RECIPE})


def test_variants_that_differ_after_training_share_one():
    changes = {
        "full": {},
        "before_cleaning": {"predict.smallest_component": 0.5},
        "longer": {"train.epochs": 99},
        "longer_cleaned": {"train.epochs": 99, "predict.smallest_component": 0.5},
    }
    recipes = {name: small_recipe(fields) for name, fields in changes.items()}
    assert run_folder.trained_as(recipes) == {
        "full": "full",
        "before_cleaning": "full",
        "longer": "longer",
        "longer_cleaned": "longer",
    }


def test_a_prediction_on_another_grid_is_refused(finished, folder, tmp_path):
    run, cohort, _ = finished
    name = cohort.validation[0]
    right = nib.load(run.path / "predictions" / "main" / f"{name}.nii.gz")
    shifted = right.affine + np.array([[0, 0, 0, 50.0], [0] * 4, [0] * 4, [0] * 4])
    for case in Brats().find(folder).cases:
        nifti.write_volume(tmp_path / f"{case.id}.nii.gz", np.asarray(right.dataobj), shifted)
    cases = Brats().find(folder).cases
    (tmp_path / f"{cases[0].id}.nii.gz").rename(tmp_path / "first.nii.gz")
    with pytest.raises(DataError, match="found 4 problems") as caught:
        scored(tmp_path, folder, ("WT",))
    first, *others = str(caught.value).splitlines()[1:]
    missing = f"no label map of 1 of 4 cases: {cases[0].id}, but 1 file of no case: first.nii.gz"
    assert missing in first
    assert all("a grid 50 mm away" in line for line in others)
    assert len(others) == 3


def test_label_maps_may_have_another_ending_of_their_kind(finished, folder, tmp_path):
    run, cohort, scores = finished
    name = cohort.validation[0]
    (tmp_path / "maps").mkdir()
    written = run.path / "predictions" / "main" / f"{name}.nii.gz"
    (tmp_path / "maps" / f"{name}.NII").write_bytes(gzip.decompress(written.read_bytes()))
    case = next(path for path in folder.rglob(name) if path.is_dir())
    shutil.copytree(case, tmp_path / "data" / name)
    again = scored(tmp_path / "maps", tmp_path / "data")
    assert again["dice"].tolist() == scores["dice"].tolist()


def test_prediction_does_not_read_the_segmentation(finished, folder, tmp_path):
    run, cohort, _ = finished
    case = next(path for path in folder.rglob(cohort.validation[0]) if path.is_dir())
    shutil.copytree(case, tmp_path / "new" / case.name)
    segmentation = next((tmp_path / "new").rglob("*seg.nii*"))
    segmentation.write_bytes(segmentation.read_bytes()[:100])
    assert "1 label maps" in predict_with(members([run.path]), tmp_path / "new", tmp_path / "out")


def test_a_phantom_is_called_one_wherever_its_folder_is_entered(finished, folder, tmp_path):
    cohort = finished[1]
    assert (cohort.name, cohort.datasets) == ("phantom in the layout of BraTS2020", ("BraTS2020",))
    (tmp_path / "link").symlink_to(folder)
    one = next(path for path in folder.iterdir() if path.is_dir())
    for entered in (folder, tmp_path, one):
        assert is_phantom(Brats().find(entered).cases[0].images[0])
    shutil.copytree(one, tmp_path / "alone" / one.name)
    assert not is_phantom(Brats().find(tmp_path / "alone").cases[0].images[0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.targets": (("WX",),)}, r"model.targets: found 'WX', expected one of: WT, TC, ET"),
        ({"model.targets": (("NCR",),)}, r"model.targets: found 'NCR', expected one of: WT, TC"),
        ({"model.auxiliary": ("WX",)}, r"model.auxiliary: found 'WX', expected one of: .*NCR"),
        ({"data.dataset": "brat"}, r"found 'brat', expected one of: brats, .*mean 'brats'"),
        ({"train.schedule": "plateau"}, "expected 'monitor'"),
        ({"train.schedule": "polynomial"}, "expected 'power'"),
        ({"train.schedule_options": {"power": 1}}, "options of constant: found 'power'"),
        ({"train.loss_options": {"edge": 1}}, "option of cross_entropy: found 'edge'"),
        ({"train.optimizer_options": {"beta": 1}}, r"train\.optimizer_options: .*beta"),
        ({"model.options.filters": "many"}, "model: "),
        ({"data.modalities": ("flair", "t1c")}, "data.modalities: found 't1c'"),
        ({"data.modalities": ("t1", "t1")}, "each once"),
        ({"model.options.residual_block": "plane"}, "plain"),
        ({"train.optimizer": "sdg"}, "train.optimizer: found 'sdg'"),
        ({"train.schedule": "poly"}, "train.schedule: found 'poly'"),
        ({"train.loss": "dise"}, "found 'dise'"),
    ],
)
def test_a_mistake_in_a_recipe_is_met_before_anything_is_written(changes, words):
    with pytest.raises(ValueError, match=words):
        steps.check_recipe(small_recipe(changes), channels=4)


def test_a_loss_that_does_not_fit_the_outputs_is_met_before_anything_is_written():
    options = {"output_weights": (1, 1)}
    changes = {"train.loss": "cross_entropy_and_dice", "train.loss_options": options}
    words = "train.loss cross_entropy_and_dice: output_weights: found .*, expected 1"
    with pytest.raises(ValueError, match=words):
        steps.check_recipe(small_recipe(changes), channels=4)


def test_an_augmentation_that_does_not_exist_is_met_before_training(finished):
    """Batches are made, and with them whatever only they can check."""
    data = recipe.Patches("brats", (16, 16, 16), "none", 0.5, 0.3, augmentation={"twist": {}})
    with pytest.raises(ValueError, match="twist"):
        steps.check_batches(Variant(small_recipe({"data": data}), "main"), finished[1])


def test_one_patient_under_two_names_is_used_once(tmp_path):
    write_brats(tmp_path / "a", cases=3, layout="BraTS2020", shape=SHAPE)
    write_brats(tmp_path / "b", cases=1, layout="BraTS2021", shape=SHAPE)
    cohort = steps.load_cohort(tmp_path, tmp_path / "store", task_of(RECIPE))
    assert len(cohort.training) + len(cohort.validation) == 3
    assert len(cohort.duplicates) == 1


def test_stored_cases_come_back_whole(finished, folder):
    _, cohort, _ = finished
    case = next(c for c in Brats().find(folder).cases if c.id == cohort.validation[0])
    arrays, stored = Brats().read(case), cohort.store.cases[case.id]
    np.testing.assert_array_equal(stored.full_image(), arrays.image)
    np.testing.assert_array_equal(stored.full_labels(), arrays.labels)


def test_label_maps_are_scored_in_the_spacing_of_a_grid_with_other_axes(tmp_path):
    """Voxels of 1 x 2 x 3 mm, stored as (z, x, y): masks 2 voxels apart along y are 4 mm apart."""
    affine = np.array([[0, -1.0, 0, 0], [0, 0, -2.0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]])
    folder = tmp_path / "data" / "BraTS2021_00000"
    folder.mkdir(parents=True)
    truth, found = np.zeros((2, 5, 6, 7), np.uint8)
    truth[2, 3, 1] = found[2, 3, 3] = 4
    for role in ("flair", "t1", "t1ce", "t2"):
        image = np.ones((5, 6, 7), np.int16)
        nifti.write_volume(folder / f"{folder.name}_{role}.nii.gz", image, affine)
    nifti.write_volume(folder / f"{folder.name}_seg.nii.gz", truth, affine)
    nifti.write_volume(tmp_path / f"{folder.name}.nii.gz", found, affine)
    table = scored(tmp_path, tmp_path / "data", ("ET",))
    assert table["hd95_mm"].tolist() == [pytest.approx(4.0)]


def test_gray_and_color_images_are_not_trained_on_together(tmp_path):
    steps.check_channels(tmp_path, {"a": 3, "b": 3})
    with pytest.raises(DataError, match=r"1 of the cases in gray \(1 channel\), such as b, expec"):
        steps.check_channels(tmp_path, {"a": 3, "b": 1, "c": 3})

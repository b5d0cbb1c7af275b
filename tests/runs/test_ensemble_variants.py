"""A variant that averages others: scored with them, predicted with, named in refusals."""

import dataclasses

import numpy as np
import pytest

from keras_medseg import recipe
from keras_medseg.errors import DataError
from keras_medseg.phantoms.brats import write_brats
from keras_medseg.runs import experiment, steps
from keras_medseg.runs.evaluate import evaluate
from keras_medseg.runs.members import decode, members, pool
from keras_medseg.runs.packing import pack
from keras_medseg.runs.run_folder import RunFolder, Variant
from keras_medseg.tasks import task_of
from keras_medseg.training.devices import Devices

from ..known_runs import PATCHES, constant, read_map, write_volumes
from ..recipes import small_recipe

CHOSEN = recipe.override(PATCHES, {"data.overlap": 0.0})
CORE = (1, 3)  # the codes of a store, whatever the files have for enhancing tumor
TOGETHER = ("low", "high", "highest")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cases")
    write_volumes(folder / "source", 4, labelled=True)
    return steps.load_cohort(folder / "source", folder / "store", task_of(CHOSEN))


@pytest.fixture
def run(tmp_path):
    """Networks that answer 0.2, 0.6 and 0.65 everywhere, and their mean."""
    made = RunFolder(tmp_path / "run")
    variants = {name: Variant(CHOSEN, name) for name in (*TOGETHER, "alone")}
    variants["mean"] = dataclasses.replace(variants["low"], members=TOGETHER)
    made.create(CHOSEN, variants, {"validation": []})
    answers = dict(zip((*TOGETHER, "alone"), (0.2, 0.6, 0.65, 0.1)))
    for name, answer in answers.items():
        place = made.training(name, CHOSEN.model.targets[0])
        place.mkdir(parents=True)
        constant(answer, dimensions=3).save(place / "model.keras")
        log = f"epoch,seconds,loss\n0,{answer * 10},1\n"
        (place / "log.csv").write_text(log)
    return made


def shares(run, name, case):
    """How much of the volume a label map calls tumor."""
    return float((read_map(run.prediction(name, case)) > 0).mean())


def test_the_mean_decides_and_its_members_are_scored_with_it(run, cohort):
    rows = steps.score_ensemble(run, "mean", cohort)
    assert rows["case"].tolist() == list(cohort.validation)
    scores = run.scores().set_index(["variant", "case"])["dice"]
    assert {*run.scores()["variant"]} == {*TOGETHER, "mean"}
    for case in cohort.validation:
        # 0.2, 0.6 and 0.65 have the mean 0.483, although two networks of three say tumor.
        found = [shares(run, name, case) for name in (*TOGETHER, "mean")]
        assert found == [0, 1, 1, 0]
        truth = np.mean(cohort.store.cases[case].full_labels() > 0)
        assert scores["high", case] == pytest.approx(2 * truth / (1 + truth))
        assert scores["low", case] == scores["mean", case] == 0


def test_the_maps_of_an_ensemble_of_slices_are_scored_alone_too(tmp_path):
    """WT 0.2 and 0.9, TC 0.6 and 0.2: the means call the window whole tumor and no tumor core,
    although one network of two calls it tumor core."""
    write_brats(tmp_path / "source", cases=3, layout="BraTS2020", shape=(60, 60, 39))
    chosen = small_recipe({"model.targets": (("WT",), ("TC",))})
    cohort = steps.load_cohort(tmp_path / "source", tmp_path / "store", task_of(chosen))
    run = RunFolder(tmp_path / "run")
    variants = {name: Variant(chosen, name) for name in ("first", "second")}
    variants["mean"] = Variant(chosen, "mean", members=("first", "second"))
    run.create(chosen, variants, {"validation": []})
    for name, answers in {"first": (0.2, 0.6), "second": (0.9, 0.2)}.items():
        for region, answer in zip(("WT", "TC"), answers):
            place = run.training(name, (region,))
            place.mkdir(parents=True)
            constant(answer).save(place / "model.keras")
    steps.score_ensemble(run, "mean", cohort)
    further = run.further_scores()
    for case in cohort.validation:
        truth = cohort.store.cases[case].full_labels()
        middle = truth[6:54, 6:54, 7:31]  # 48 x 48 x 24 of 60 x 60 x 39, from (39 - 24) // 2 on
        whole = 2 * np.sum(middle > 0) / (np.sum(truth > 0) + middle.size)
        core = 2 * np.isin(middle, CORE).sum() / (np.isin(truth, CORE).sum() + middle.size)
        rows = further[further["case"] == case]
        found = rows.pivot(index="variant", columns="region", values="dice_alone")
        assert found.loc["mean"].to_dict() == pytest.approx({"WT": whole, "TC": 0})
        assert found.loc["first"].to_dict() == pytest.approx({"WT": 0, "TC": core})


def test_what_is_scored_is_not_predicted_again(run, cohort, monkeypatch):
    first = steps.score_ensemble(run, "mean", cohort)
    monkeypatch.setattr(RunFolder, "networks", lambda *given: pytest.fail("opened a network"))
    again = steps.score_ensemble(run, "mean", cohort)
    assert again.to_dict("records") == first.to_dict("records")


def test_a_killed_prediction_leaves_no_row_twice(run, cohort):
    steps.score_variant(run, "low", cohort)
    steps.score_ensemble(run, "mean", cohort)
    counts = run.scores().groupby(["variant", "case"]).size()
    assert (counts == 1).all()


def test_an_ensemble_predicts_by_its_members(run, cohort, tmp_path):
    found = members([f"{run.path}:mean"])
    assert [member.variant for member in found] == list(TOGETHER)
    task = found[0].task
    case = task.dataset.find(cohort.store.folder.parent / "source").cases[0]
    maps = pool(found, decode(found, case)).maps
    assert float(maps["WT"].mean()) == pytest.approx((0.2 + 0.6 + 0.65) / 3)


def test_it_has_no_network_of_its_own(run, tmp_path):
    words = r"mean: found an ensemble, expected one training. Name one of low, high, highest"
    for refused in (
        lambda: run.networks("mean"),
        lambda: evaluate(f"{run.path}:mean", {"Other": tmp_path}, tmp_path / "out"),
        lambda: pack(run, tmp_path / "weights.zip", variant="mean"),
    ):
        with pytest.raises(ValueError, match=words):
            refused()


def test_its_costs_are_those_of_its_members(run, monkeypatch):
    def counted(networks):
        sizes = [network.count_params() for network in networks]
        return {"networks": len(sizes), "parameters": sum(sizes)}

    monkeypatch.setattr(steps.complexity, "costs", counted)
    table = steps.network_costs(run, ["low", "mean"]).set_index("variant")
    assert table.loc["mean", "networks"] == 3
    assert table.loc["mean", "parameters"] == 3 * table.loc["low", "parameters"]
    assert table.loc["mean", "training_epochs"] == 3
    assert table.loc["mean", "training_seconds"] == pytest.approx(2 + 6 + 6.5)


def test_other_members_are_another_run(run):
    variants = run.variants
    run.create(CHOSEN, variants, {"validation": []})
    variants["mean"] = dataclasses.replace(variants["mean"], members=("low", "high"))
    with pytest.raises(DataError, match="a run with members of mean"):
        run.create(CHOSEN, variants, {"validation": []})


def test_a_run_trains_the_variants_and_scores_ensembles_behind_them(monkeypatch):
    done = []
    monkeypatch.setattr(steps, "train_variant", lambda run, name, *rest, **more: done.append(name))
    monkeypatch.setattr(steps, "score_variant", lambda run, name, cohort: done.append(f"{name}!"))
    monkeypatch.setattr(steps, "score_ensemble", lambda run, name, cohort: done.append(f"{name}*"))
    plain = {name: Variant(CHOSEN, name) for name in ("a", "b", "c")}
    profile = experiment.Profile({}, {}, ensembles={"d": ("b", "c")})

    class Run:
        variants = experiment._with_ensembles(profile, plain)

        def gather_logs(self):
            pass

    experiment._train_and_score(Run(), None, Devices(), None)
    assert done == ["a", "b", "c", "a!", "d*"]
    assert Run.variants["d"].trained_as == "b"


def test_an_ensemble_of_images_is_refused():
    data = recipe.Images("image_folders", (8, 8), {"lesion": ()}, "mean_std", 0.2)
    images = Variant(dataclasses.replace(CHOSEN, data=data), "a")
    profile = experiment.Profile({}, {}, ensembles={"d": ("a",)})
    with pytest.raises(ValueError, match="ensembles: found d of variants with images, expected"):
        experiment._with_ensembles(profile, {"a": images})


def test_a_variant_with_its_own_sections_shares_what_is_of_the_run():
    others = {"data": recipe.Patches("brats", (4, 4, 4), "none", 0.5, 0.9), "train": CHOSEN.train}
    profile = experiment.Profile({}, {"other": {**others, "train.epochs": 7}})
    given = {"train.seed": 3, "data.split_seed": 5, "data.options": {"spacing_mm": (2, 2, 2)}}
    base = recipe.override(CHOSEN, given)
    found = experiment._recipes(profile, base)["other"]
    assert (found.train.seed, found.train.epochs) == (3, 7)
    assert (found.data.validation, found.data.split_seed) == (0.5, 5)
    assert found.data.options == {"spacing_mm": (2, 2, 2)}
    assert found.data.patch == (4, 4, 4)

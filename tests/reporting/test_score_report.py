"""The report on folders of label maps: its files, what is chosen to be shown, the page in use."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from keras_medseg import cli, phantoms
from keras_medseg.data import datasets
from keras_medseg.data.formats import nifti

from .browser import needs_browser, use

NAMES = ("eroded", "<b>moved</b>")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Two methods on three synthetic cases, scored and reported by the command."""
    folder = tmp_path_factory.mktemp("scored")
    phantoms.write(folder / "truth", layout="BraTS2021", cases=3, size=(32, 32, 24))
    dataset = datasets.of_folder(folder / "truth")
    for case in dataset.find(folder / "truth").cases:
        volume = nifti.load(case.labels)
        labels = volume.array.astype(np.uint8)
        affine = volume.header.affine
        inner = labels * ndimage.binary_erosion(labels > 0)
        nifti.write_volume(folder / f"a/{case.id}.nii.gz", inner, affine)
        nifti.write_volume(folder / f"b/{case.id}_pred.nii.gz", np.roll(labels, 3, 0), affine)
    (folder / "a" / "other.nii.gz").write_bytes((folder / f"a/{case.id}.nii.gz").read_bytes())
    words = [f"{name}={folder / path}" for name, path in zip(NAMES, "ab")]
    words += ["--truth", str(folder / "truth"), "--report", "--workers", "1"]
    words += ["--metrics", "dice,hd95", "--out", str(folder / "out.csv"), "--channel", "t2"]
    with pytest.warns(UserWarning, match="not scored: other.nii.gz"):
        assert cli.main(["score", *words]) == 0
    return folder / "out.html"


def test_numbers_beside_the_page(page):
    names = sorted(path.name for path in page.parent.glob("out*"))
    tables = "out_permutations.csv", "out_ranking.csv", "out_summary.csv", "out_tests.csv"
    assert names == ["out.csv", "out.html", "out.json", "out_figures", *tables]
    scores = pd.read_csv(page.with_suffix(".csv"))
    content = json.loads(page.with_suffix(".json").read_text())
    assert content["metrics"] == content["rank_by"] == ["dice", "hd95_mm"]
    assert content["cases"] == 3
    assert len(content["scores"]) == len(scores) == 2 * 3 * 3
    assert content["remarks"] == ["eroded: 1 file of no case, not scored: other.nii.gz."]
    for row in content["summary"]:
        chosen = (scores["variant"] == row["variant"]) & (scores["region"] == row["region"])
        assert row["mean"] == pytest.approx(scores.loc[chosen, row["metric"]].mean(), abs=1e-12)
    tests = pd.DataFrame(content["tests"])
    assert tests[["first", "second"]].drop_duplicates().to_numpy().tolist() == [[*NAMES]]
    apart = tests["second_mean"] - tests["first_mean"]
    assert tests["difference"].to_numpy() == pytest.approx(apart.to_numpy())
    ordered = tests.sort_values("p", kind="stable")
    stepped = (ordered["p"] * np.arange(6, 0, -1)).cummax().clip(upper=1)  # Holm, 6 tests
    assert ordered["p_holm"].to_numpy() == pytest.approx(stepped.to_numpy())
    assert (tests["p_holm"] > tests["p"]).any()
    assert len(tests) == 3 * 2
    for name in ("tests", "ranking", "permutations"):
        table = pd.read_csv(page.parent / f"out_{name}.csv")
        assert len(table) == len(content[name])


def test_the_page_is_self_contained_and_escapes_names(page):
    text = page.read_text()
    assert "<b>moved</b>" not in text
    assert "&lt;b&gt;moved&lt;/b&gt;" in text
    assert "http://" not in text
    assert "https://" not in text
    assert 'src="data:image/png;base64,' in text
    assert "With 3 cases no paired test can reach p &lt; 0.05" in text
    assert {path.name for path in (page.parent / "out_figures").iterdir()} == {
        *(f"{what}_{metric}.png" for what in ("means", "cases", "differences")
          for metric in ("dice", "hd95_mm")),
        "worst_1.png",
        "worst_2.png",
    }  # fmt: skip


@needs_browser
def test_the_page_in_a_browser(page, tmp_path):
    """A case of the table opens in the viewer; its table sorts; nothing is wider than a phone."""
    script = """
    await pause();
    said.start = shown();
    const options = [...document.querySelectorAll("#viewer [name=map] option")];
    said.maps = options.map((one) => one.textContent);
    const table = document.getElementById("cases"), rows = table.tBodies[0].rows;
    const link = rows[4].querySelector("a");
    said.row = [...rows[4].cells].slice(0, 3).map((cell) => cell.textContent);
    link.click(); await pause();
    press("p");
    said.opened = shown();
    table.tHead.rows[0].cells[3].querySelector("button").click();
    said.dice = [...rows].map((row) => Number(row.cells[3].dataset.value));
    said.widths = [document.documentElement.scrollWidth, innerWidth];
    """
    said = use(page, script, tmp_path, size=(390, 800))
    assert said["start"] == {}
    assert said["maps"] == [*NAMES]
    case, method, region = said["row"]
    assert said["opened"]["case"] == case
    assert (said["opened"]["map"], said["opened"]["region"]) == (method, region)
    assert said["opened"]["mode"] == "prediction"
    assert said["dice"] == sorted(said["dice"])
    assert len(said["dice"]) == 18
    wide, window = said["widths"]
    assert wide <= window <= 500

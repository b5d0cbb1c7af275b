import numpy as np
import pandas as pd
import pytest
from PIL import Image

from keras_medseg.data.datasets.brats import EDEMA, ENHANCING, MODALITIES, NECROTIC
from keras_medseg.reporting import figures


def training_log(epochs: int) -> pd.DataFrame:
    epoch = np.arange(1, epochs + 1)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "learning_rate": 0.005,
            "loss": 0.5 / epoch,
            "accuracy": 1 - 0.1 / epoch,
            "val_loss": 0.6 / epoch,
            "val_accuracy": 1 - 0.2 / epoch,
        }
    )


def score_table(cases: int, variants=("with_edge", "without_edge")) -> pd.DataFrame:
    generator = np.random.default_rng(cases)
    return pd.DataFrame(
        [
            {"variant": variant, "case": f"case{number:02d}", "region": region}
            | {"dice": generator.uniform(0.5, 1), "hd95_mm": generator.uniform(1, 9)}
            for variant in variants
            for number in range(cases)
            for region in ("WT", "TC", "ET")
        ]
    )


def case_arrays(shape=(40, 48, 6)) -> tuple[np.ndarray, np.ndarray]:
    """A bright box of brain, and a lesion in its left posterior corner (large x, large y)."""
    image = np.zeros((*shape, len(MODALITIES)), np.int16)
    image[4:36, 4:44] = 100
    labels = np.zeros(shape, np.uint8)
    labels[26:34, 32:42, 3] = EDEMA
    labels[28:32, 34:40, 3] = NECROTIC
    labels[29:31, 36:38, 3] = ENHANCING
    labels[26:28, 32:34, 1] = EDEMA
    return image, labels


def pixels(figure) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].astype(int)


@pytest.mark.parametrize("epochs", [1, 3, 40])
def test_learning_curves_have_a_column_per_variant_and_whole_epochs(epochs):
    logs = {f"{v}-{r}": training_log(epochs) for v in ("a_b", "c") for r in ("WT", "TC", "ET")}
    figure = figures.learning_curves(logs)
    panels = np.array(figure.axes).reshape(3, 2)
    assert [panel.get_title() for panel in panels[0]] == ["a b", "c"]
    assert len(panels[0, 0].lines) == 6  # three regions, training and validation
    assert len(panels[2, 0].lines) == 3  # the learning rate has no validation
    ticks = panels[0, 0].get_xticks()
    assert ticks[0] == 1
    assert ticks[-1] <= epochs
    assert len(ticks) <= 10
    assert (ticks == np.round(ticks)).all()


def test_learning_curves_of_a_log_without_validation():
    log = training_log(2).drop(columns=["val_loss", "val_accuracy"])
    figure = figures.learning_curves({"main-WT": log})
    assert [len(panel.lines) for panel in figure.axes] == [1, 1, 1]


def test_a_region_has_its_colour_in_every_figure():
    figure = figures.learning_curves({"main-ET": training_log(2)})
    assert figure.axes[0].lines[0].get_color() == figures.REGION_COLOURS["ET"]
    assert figures.region_colours(["TC", "lesion", "cyst"]) == {
        "TC": figures.REGION_COLOURS["TC"],
        "lesion": figures.OTHER_COLOURS[0],
        "cyst": figures.OTHER_COLOURS[1],
    }


@pytest.mark.parametrize(("cases", "boxes"), [(1, 0), (3, 0), (4, 0), (5, 2), (30, 2)])
def test_score_boxes_draw_every_case_and_a_box_only_from_five_cases(cases, boxes):
    figure = figures.score_boxes(score_table(cases))
    assert [panel.get_title() for panel in figure.axes] == ["WT", "TC", "ET"]
    panel = figure.axes[0]
    assert len(panel.patches) == boxes
    points = np.concatenate([c.get_offsets() for c in panel.collections if len(c.get_offsets())])
    drawn = sorted(y for _, y in points if not np.ma.is_masked(y))
    scores = score_table(cases)
    assert set(np.round(scores.loc[scores["region"] == "WT", "dice"], 9)) <= set(np.round(drawn, 9))
    assert all(f"n = {cases}" in label.get_text() for label in panel.get_xticklabels())
    assert panel.get_ylim() == pytest.approx((-0.03, 1.03))


def test_score_boxes_show_where_a_variant_has_no_scores():
    scores = score_table(3)
    left = scores[(scores["variant"] == "with_edge") | (scores["region"] == "WT")]
    figure = figures.score_boxes(left)
    labels = [label.get_text().splitlines()[-1] for label in figure.axes[2].get_xticklabels()]
    assert labels == ["n = 3", "n = 0"]


def test_hd95_has_its_unit_and_its_own_axis():
    figure = figures.score_boxes(score_table(6), metric="hd95_mm")
    assert figure.axes[0].get_ylabel() == "HD95 (mm)"
    assert figure.axes[0].get_ylim()[1] > 2


def test_largest_slice_prefers_the_annotation():
    truth, prediction = np.zeros((2, 4, 4, 7), np.uint8)
    assert figures.largest_slice(truth, prediction) == 3
    prediction[:2, :2, 5] = 1
    assert figures.largest_slice(truth, prediction) == 5
    truth[0, 0, 1] = 1
    assert figures.largest_slice(truth, prediction) == 1


def test_overlay_shows_left_on_the_right_and_posterior_below():
    image, labels = case_arrays()
    figure = figures.case_overlay(image, labels, labels * 0, title="case", dice={"WT": 0.5})
    picture = pixels(figure)
    panel = figure.axes[1].get_window_extent()
    height = picture.shape[0]
    rows = slice(int(height - panel.y1), int(height - panel.y0))
    annotated = picture[rows, int(panel.x0) : int(panel.x1)]
    yellow = (annotated[..., 0] > 180) & (annotated[..., 1] > 150) & (annotated[..., 2] < 90)
    down, across = np.argwhere(yellow).mean(axis=0) / annotated.shape[:2]
    # x 26..34 of 0..40 and y 32..42 of 0..48: centres at 0.75 and 0.77 of the picture.
    assert across == pytest.approx(0.75, abs=0.04)
    assert down == pytest.approx(0.77, abs=0.04)
    assert "axial slice z = 3" in figure.get_suptitle()


def test_overlay_of_a_case_without_any_tumour_and_with_thick_slices():
    image, labels = case_arrays()
    figure = figures.case_overlay(
        image, labels * 0, labels * 0, title="t", dice={"ET": 1.0}, spacing_mm=(1.0, 2.0, 5.0)
    )
    across, down = figure.axes[0].get_xlim(), figure.axes[0].get_ylim()
    assert (across[1] - across[0], down[0] - down[1]) == (40, 96)  # 48 rows of 2 mm
    assert pixels(figure).shape[2] == 3


def test_edge_maps_share_one_scale():
    image, labels = case_arrays()
    truth = labels[:, :, 3] > 0
    strong, weak = np.full(truth.shape, 4.0), np.full(truth.shape, 1.0)
    figure = figures.edge_maps(
        image[:, :, 3, 0],
        truth,
        weak,
        {"without_edge": (weak, weak), "with_edge": (weak, strong)},
    )
    drawn = {panel.get_title(): panel for panel in figure.axes if panel.get_title()}
    assert list(drawn) == ["input", "annotation", "without edge", "with edge"]
    limits = [p.images[0].get_clim() for p in figure.axes if p.images][-3:]
    assert limits == [(0, 4.0)] * 3


def test_edge_maps_of_empty_masks():
    nothing = np.zeros((16, 16))
    figure = figures.edge_maps(nothing, nothing, nothing, {"with edge": (nothing, nothing)})
    assert pixels(figure).any()


def test_every_output_has_its_annotation_and_its_probabilities():
    image, labels = case_arrays()
    truth = labels[:, :, 3] > 0
    outputs = {"WT": (truth, truth * 0.9), "ET": (np.zeros_like(truth), truth * 0.1)}
    figure = figures.output_maps(image[:, :, 3, 0], outputs)
    drawn = {panel.get_title(): panel.images[0] for panel in figure.axes if panel.get_title()}
    brightest = {"WT, annotation": 1.0, "ET, annotation": 0.0, "WT, output": 0.9, "ET, output": 0.1}
    assert list(drawn) == ["input", *brightest]
    for title, value in brightest.items():
        assert drawn[title].get_array().max() == value
        assert drawn[title].get_clim() == (0, 1.0)  # probabilities can be read off


def test_attention_maps_have_scales_of_their_own():
    picture, truth = np.full((8, 16, 3), 200, np.uint8), np.zeros((8, 16), bool)
    truth[2:5, 3:9] = True
    weak, strong = np.linspace(0.25, 0.5, 128).reshape(8, 16), np.full((8, 16), 3.0)
    strong[0, 0] = 1000.0
    flat = np.full((8, 16), 0.5)
    flat[0, 0] += 1e-6
    maps = {"SA3": weak, "Skip5_CSAM": strong, "CA3": weak, "CA5": weak, "SFA": flat}
    figure = figures.attention_grid(picture, maps, truth)
    drawn = {panel.get_title(): panel for panel in figure.axes if panel.images}
    first = ["picture\nand annotation", "SA3\n0.25 to 0.5", "Skip5 CSAM\n3 to 1e+03"]
    assert [*drawn][:3] == first
    assert drawn[first[2]].images[0].get_clim() == (3.0, 1000.0)
    assert len(drawn[first[0]].collections) == 1  # the annotation's outline
    assert drawn["SFA\n0.5 everywhere"].images[0].get_clim() == pytest.approx((0, 1), abs=1e-5)
    assert (len(drawn), len(figure.axes)) == (6, 8)  # two rows of four
    assert not any(panel.axison for panel in figure.axes[6:])


def test_masks_of_all_networks_stand_beside_the_annotation():
    picture, truth = np.full((8, 16, 1), 200, np.uint8), np.zeros((8, 16), bool)
    truth[2:5, 3:9] = True
    masks = {"U-Net": truth, "own_network": np.zeros_like(truth)}
    figure = figures.mask_grid({"12": (picture, truth, masks), "7": (picture, ~truth, masks)})
    titles = [panel.get_title() for panel in figure.axes]
    assert titles == ["picture", "annotation", "U-Net", "own network", "", "", "", ""]
    assert [figure.axes[0].get_ylabel(), figure.axes[4].get_ylabel()] == ["12", "7"]
    assert [panel.images[0].get_array().sum() for panel in figure.axes[1:4]] == [18, 18, 0]
    assert len(figure.axes[3].collections) == 1  # the annotation's outline, on an empty mask too
    assert len(figure.axes[2].collections) == 1  # and on one that equals it
    assert len(figure.axes[0].collections) == len(figure.axes[1].collections) == 0
    assert pixels(figure).shape[2] == 3


def test_saved_pictures_are_small_even_for_noise_and_leave_no_traces(tmp_path):
    generator = np.random.default_rng(0)
    image = generator.integers(1, 1000, (240, 240, 2, 4)).astype(np.int16)
    labels = np.zeros((240, 240, 2), np.uint8)
    figure = figures.case_overlay(image, labels, labels, title="noise", dice={"WT": 1.0})
    path = figures.save(figure, tmp_path / "figures" / "noise.png")
    assert [file.name for file in path.parent.iterdir()] == ["noise.png"]
    with Image.open(path) as picture:
        assert picture.width > 900
    assert path.stat().st_size < figures.MAX_BYTES
    curves = figures.save(figures.learning_curves({"a-WT": training_log(3)}), tmp_path / "a.png")
    assert curves.stat().st_size < figures.MAX_BYTES


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="logs: found none"):
        figures.learning_curves({})
    with pytest.raises(ValueError, match="scores: found no rows"):
        figures.score_boxes(score_table(0))

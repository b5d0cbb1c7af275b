import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from keras_medseg.reporting.figures import style, volumes

EDEMA, NECROTIC, ENHANCING = 2, 1, 3
LABELS = {EDEMA: "edema", NECROTIC: "necrotic, non-enhancing", ENHANCING: "enhancing"}
REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}


def case_arrays(shape=(40, 48, 6)) -> tuple[np.ndarray, np.ndarray]:
    """A bright box of brain, and a lesion in its left posterior corner (large x, large y)."""
    image = np.zeros(shape, np.int16)
    image[4:36, 4:44] = 100
    labels = np.zeros(shape, np.uint8)
    labels[26:34, 32:42, 3] = EDEMA
    labels[28:32, 34:40, 3] = NECROTIC
    labels[29:31, 36:38, 3] = ENHANCING
    labels[26:28, 32:34, 1] = EDEMA
    return image, labels


def overlay(image, truth, prediction, *, channels=("flair", "t1ce"), **options):
    options = {
        "labels": LABELS,
        "regions": REGIONS,
        "title": "case",
        "dice": {"WT": 0.5},
        **options,
    }
    backgrounds = dict.fromkeys(channels, image)
    return volumes.volume_overlay(backgrounds, truth, prediction, **options)


def pixels(figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].astype(int)


def test_largest_slice_prefers_the_annotation():
    truth, prediction = np.zeros((2, 4, 4, 7), np.uint8)
    assert volumes.largest_slice(truth, prediction) == 3
    prediction[:2, :2, 5] = 1
    assert volumes.largest_slice(truth, prediction) == 5
    truth[0, 0, 1] = 1
    assert volumes.largest_slice(truth, prediction) == 1


def test_overlay_shows_left_on_the_right_and_posterior_below():
    image, labels = case_arrays()
    figure = overlay(image, labels, labels * 0)
    drawn = pixels(figure)
    panel = figure.axes[1].get_window_extent()
    height = drawn.shape[0]
    rows = slice(int(height - panel.y1), int(height - panel.y0))
    annotated = drawn[rows, int(panel.x0) : int(panel.x1)]
    yellow = (annotated[..., 0] > 180) & (annotated[..., 1] > 150) & (annotated[..., 2] < 90)
    down, across = np.argwhere(yellow).mean(axis=0) / annotated.shape[:2]
    # x 26..34 of 0..40 and y 32..42 of 0..48: centers at 0.75 and 0.77 of the panel.
    assert across == pytest.approx(0.75, abs=0.04)
    assert down == pytest.approx(0.77, abs=0.04)
    assert "axial slice z = 3" in figure.get_suptitle()


def test_overlay_of_a_case_without_any_tumor_and_with_thick_slices():
    image, labels = case_arrays()
    figure = overlay(image, labels * 0, labels * 0, spacing_mm=(1.0, 2.0, 5.0))
    across, down = figure.axes[0].get_xlim(), figure.axes[0].get_ylim()
    assert (across[1] - across[0], down[0] - down[1]) == (40, 96)  # 48 rows of 2 mm
    assert pixels(figure).shape[2] == 3


def test_each_background_is_bare_annotated_and_predicted_and_only_the_core_is_outlined():
    image, labels = case_arrays()
    figure = overlay(image, labels, np.where(labels > 0, EDEMA, 0))
    titles = [panel.get_title() for panel in figure.axes]
    kinds = ("", ", annotation", ", prediction")
    assert titles == [f"{name}{kind}" for name in ("FLAIR", "T1ce") for kind in kinds]
    # Regions of one label and the region of all labels have no outline; edema alone is no core.
    assert [len(panel.collections) for panel in figure.axes] == [0, 1, 0] * 2
    [legend] = figure.legends
    words = [text.get_text() for text in legend.get_texts()]
    assert words == [*LABELS.values(), "outline of the tumor core"]


def test_overlay_of_a_data_set_with_other_labels_and_regions():
    image, labels = case_arrays()
    regions = {"kidney": (1, 2, 3), "masses": (2, 3), "solid": (1, 3), "tumor": (2,)}
    names = {1: "kidney", 2: "tumor", 3: "cyst"}
    figure = overlay(image, labels, labels, channels=("ct",), labels=names, regions=regions)
    assert figure.axes[0].get_title() == "ct"
    assert [len(panel.collections) for panel in figure.axes] == [0, 2, 2]
    [legend] = figure.legends
    words = [text.get_text() for text in legend.get_texts()]
    outlines = ["outline of the masses", "outline of the solid"]
    assert words == ["kidney", "tumor", "cyst", *outlines]
    lines = [handle.get_color() for handle in legend.legend_handles[3:]]
    assert lines[0] == style.OUTLINE_COLOR != lines[1]


def test_overlay_without_a_background_is_an_error():
    _, labels = case_arrays()
    with pytest.raises(ValueError, match="backgrounds: found none"):
        overlay(labels, labels, labels, channels=())


def test_edge_maps_share_one_scale():
    image, labels = case_arrays()
    truth = labels[:, :, 3] > 0
    strong, weak = np.full(truth.shape, 4.0), np.full(truth.shape, 1.0)
    figure = volumes.edge_maps(
        image[:, :, 3],
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
    figure = volumes.edge_maps(nothing, nothing, nothing, {"with edge": (nothing, nothing)})
    assert pixels(figure).any()


def test_every_output_has_its_annotation_and_its_probabilities():
    image, labels = case_arrays()
    truth = labels[:, :, 3] > 0
    outputs = {"WT": (truth, truth * 0.9), "ET": (np.zeros_like(truth), truth * 0.1)}
    figure = volumes.output_maps(image[:, :, 3], outputs)
    drawn = {panel.get_title(): panel.images[0] for panel in figure.axes if panel.get_title()}
    brightest = {"WT, annotation": 1.0, "ET, annotation": 0.0, "WT, output": 0.9, "ET, output": 0.1}
    assert list(drawn) == ["input", *brightest]
    for title, value in brightest.items():
        assert drawn[title].get_array().max() == value
        assert drawn[title].get_clim() == (0, 1.0)  # probabilities can be read off


def test_boxes_stand_where_two_masks_differ_by_more_than_an_outline():
    one = np.zeros((40, 30), bool)
    one[10:30, 8:20] = True
    other = one.copy()
    other[10] = False  # a rim of one pixel
    assert volumes.difference_boxes(one, other) == []
    other[24:30, 8:14] = False  # a corner that is missing
    other[1:5, 24:30] = True  # an island at the border
    expected = [(slice(0, 7), slice(22, 30)), (slice(22, 32), slice(6, 16))]
    assert volumes.difference_boxes(one, other) == expected == volumes.difference_boxes(other, one)
    other[24:28, 17:20] = False  # 3 pixels beside the corner: one place with it
    assert volumes.difference_boxes(one, other)[1:] == [(slice(22, 32), slice(6, 22))]


def test_differences_are_boxed_in_both_predictions():
    image, labels = case_arrays()
    truth = labels[:, :, 3] > 0
    grown = truth.copy()
    grown[:5, :5] = True
    rows = {
        name: (image[:, :, 3], truth, {"ours": truth, "theirs": mask})
        for name, mask in (("a", grown), ("b", truth))
    }
    figure = volumes.prediction_differences(rows, color="#E69F00")
    panels = [(p.get_title(), len(p.patches)) for p in figure.axes]
    titles = ["input", "annotation", "ours", "theirs"]
    assert panels == [*zip(titles, (0, 0, 1, 1)), *zip(titles, (0, 0, 0, 0))]
    assert figure.axes[0].get_ylabel() == "a"


def test_a_saved_overlay_is_small_even_for_noise(tmp_path):
    generator = np.random.default_rng(0)
    image = generator.integers(1, 1000, (240, 240, 2)).astype(np.int16)
    labels = np.zeros((240, 240, 2), np.uint8)
    path = style.save(overlay(image, labels, labels), tmp_path / "figures" / "noise.png")
    assert [file.name for file in path.parent.iterdir()] == ["noise.png"]
    with Image.open(path) as saved:
        assert saved.width > 900
    assert path.stat().st_size < style.MAX_BYTES


def test_intensities_below_zero_are_not_all_black():
    """CT has air at -1000; of MRI, which has none, 0 is black."""
    scan = np.full((12, 10, 4), -1000.0)
    scan[3:9, 3:8, 1:3] = 40.0
    labels = np.zeros(scan.shape, np.uint8)
    labels[5:7, 4:6, 1:3] = 1
    options = {"labels": {1: "organ"}, "regions": {"organ": (1,)}, "title": "", "dice": {}}
    for image, black in ((scan, -1000.0), (np.maximum(scan, 0), 0.0)):
        drawn = volumes.volume_overlay({"ct": image}, labels, labels, **options)
        assert drawn.axes[0].images[0].get_clim() == (black, 40.0)

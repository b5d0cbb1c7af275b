import io

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from keras_medseg.reporting.figures import style


def noise(pixels: int) -> Figure:
    figure = Figure(figsize=(7, 5))
    values = np.random.default_rng(0).random((pixels, pixels))
    figure.subplots().imshow(values, cmap="gray", interpolation="nearest")
    return figure


def test_regions_have_one_color_in_all_figures():
    assert style.region_colors(["TC", "lesion", "cyst"]) == {
        "TC": style.REGION_COLORS["TC"],
        "lesion": style.OTHER_COLORS[0],
        "cyst": style.OTHER_COLORS[1],
    }


def test_labels_have_the_colors_of_their_names_and_not_of_their_codes():
    labels = {7: "edema", 1: "necrotic, non-enhancing", 2: "kidney", 3: "cyst"}
    assert style.label_colors(labels) == {
        7: style.LABEL_COLORS["edema"],
        1: style.LABEL_COLORS["necrotic"],
        2: style.OTHER_COLORS[0],
        3: style.OTHER_COLORS[1],
    }
    many = {code: f"organ {code}" for code in range(1, 9)}
    assert style.label_colors(many)[1] == style.label_colors(many)[5]  # the cycle begins again


def test_names_that_are_not_known_stay():
    assert [style.channel_title(name) for name in ("t1ce", "adc")] == ["T1ce", "adc"]
    assert [style.region_title(name) for name in ("TC", "polyp")] == ["tumor core", "polyp"]


def test_the_style_ends_with_the_figure():
    before = dict(matplotlib.rcParams)

    @style.styled
    def draw() -> Figure:
        """Draw."""
        assert matplotlib.rcParams["font.size"] == 9
        raise RuntimeError

    with pytest.raises(RuntimeError):
        draw()
    assert dict(matplotlib.rcParams) == before
    assert (draw.__name__, draw.__doc__) == ("draw", "Draw.")


def test_large_files_are_reduced_to_256_colors(tmp_path):
    buffer = io.BytesIO()
    noise(600).savefig(buffer, format="png", dpi=style.DOTS_PER_INCH)
    path = style.save(noise(600), tmp_path / "figures" / "noise.png")
    assert style.MAX_BYTES < buffer.tell() > path.stat().st_size
    assert [file.name for file in path.parent.iterdir()] == ["noise.png"]
    with Image.open(path) as image:
        assert (image.width, image.mode) == (7 * style.DOTS_PER_INCH, "P")
    small = style.save(noise(8), tmp_path / "small.png")
    assert small.stat().st_size < style.MAX_BYTES
    with Image.open(small) as image:
        assert image.mode == "RGBA"


def test_panels_have_the_size_that_was_asked_for():
    figure, axes = style.image_panels(2, 3, width=2.0, height=1.5, extra=0.5, gap=0.25)
    assert axes.shape == (2, 3)
    assert tuple(figure.get_size_inches()) == (6.0, 3.75)

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from keras_medseg.reporting.figures import images


def test_an_image_stands_beside_the_outlines_of_its_annotation_and_of_the_prediction():
    image, truth = np.full((8, 16, 3), 200, np.uint8), np.zeros((8, 16), bool)
    truth[2:5, 3:9] = True
    figure = images.image_overlay(
        image, truth, np.zeros_like(truth), title="best case: 12", dice={"polyp": 0.0}
    )
    bare, outlined = figure.axes
    assert [bare.get_title(), outlined.get_title()] == ["image", "annotation and prediction"]
    assert (len(bare.collections), len(outlined.collections)) == (0, 1)  # nothing was predicted
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["annotation", "prediction"]
    assert figure.get_suptitle() == "best case: 12\nDice: polyp 0.00"
    FigureCanvasAgg(figure).draw()


def test_attention_maps_have_scales_of_their_own():
    image, truth = np.full((8, 16, 3), 200, np.uint8), np.zeros((8, 16), bool)
    truth[2:5, 3:9] = True
    weak, strong = np.linspace(0.25, 0.5, 128).reshape(8, 16), np.full((8, 16), 3.0)
    strong[0, 0] = 1000.0
    flat = np.full((8, 16), 0.5)
    flat[0, 0] += 1e-6
    maps = {"SA3": weak, "Skip5_CSAM": strong, "CA3": weak, "CA5": weak, "SFA": flat}
    figure = images.attention_grid(image, maps, truth)
    drawn = {panel.get_title(): panel for panel in figure.axes if panel.images}
    first = ["image\nand annotation", "SA3\n0.25 to 0.5", "Skip5 CSAM\n3 to 1e+03"]
    assert [*drawn][:3] == first
    assert drawn[first[2]].images[0].get_clim() == (3.0, 1000.0)
    assert len(drawn[first[0]].collections) == 1  # the annotation's outline
    assert drawn["SFA\n0.5 everywhere"].images[0].get_clim() == pytest.approx((0, 1), abs=1e-5)
    assert (len(drawn), len(figure.axes)) == (6, 8)  # two rows of four
    assert not any(panel.axison for panel in figure.axes[6:])


def test_masks_of_all_networks_stand_beside_the_annotation():
    image, truth = np.full((8, 16, 1), 200, np.uint8), np.zeros((8, 16), bool)
    truth[2:5, 3:9] = True
    masks = {"U-Net": truth, "own_network": np.zeros_like(truth)}
    figure = images.mask_grid({"12": (image, truth, masks), "7": (image, ~truth, masks)})
    titles = [panel.get_title() for panel in figure.axes]
    assert titles == ["image", "annotation", "U-Net", "own network", "", "", "", ""]
    assert [figure.axes[0].get_ylabel(), figure.axes[4].get_ylabel()] == ["12", "7"]
    assert [panel.images[0].get_array().sum() for panel in figure.axes[1:4]] == [18, 18, 0]
    assert len(figure.axes[3].collections) == 1  # the annotation's outline, on an empty mask too
    assert len(figure.axes[2].collections) == 1  # and on one that equals it
    assert len(figure.axes[0].collections) == len(figure.axes[1].collections) == 0
    FigureCanvasAgg(figure).draw()

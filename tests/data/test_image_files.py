"""image_files.py on whole, odd and damaged files; the corpus is bad_images.py."""

import re

import numpy as np
import pytest
from PIL import Image, ImageOps

from keras_medseg.data.formats import image_files
from keras_medseg.errors import DataError

from . import bad_images as corpus

READ = {"image": image_files.read_image, "mask": image_files.read_mask}


def _name(value):
    return f"{value.role}-{value.name}" if isinstance(value, corpus.File) else ""


@pytest.mark.parametrize("file", corpus.REFUSED, ids=_name)
def test_refused_with_one_line_that_names_file_finding_and_remedy(file, tmp_path):
    path = tmp_path / file.name
    path.write_bytes(file.bytes())
    with pytest.raises(DataError, match=file.verdict) as caught:
        READ[file.role](path)
    text = str(caught.value)
    assert text.startswith(f"{path}: found ")
    assert ", expected " in text
    assert text.endswith(".")
    assert "\n" not in text


@pytest.mark.parametrize(("file", "pixels"), corpus.ACCEPTED, ids=_name)
def test_accepted_with_exact_pixels(file, pixels, tmp_path):
    path = tmp_path / file.name
    path.write_bytes(file.bytes())
    read = READ[file.role](path)
    np.testing.assert_array_equal(read.pixels, pixels)
    assert read.pixels.dtype == np.uint8
    assert len(read.remarks) == bool(file.verdict)
    for remark in read.remarks:
        assert remark.startswith(f"{path}: ")
        assert re.search(file.verdict, remark)


def test_jpeg_has_the_decoders_pixels(tmp_path):
    path = tmp_path / "a.JPG"
    path.write_bytes(corpus.JPEG)
    read = image_files.read_image(path)
    np.testing.assert_array_equal(read.pixels, np.asarray(Image.open(path)))
    assert read.remarks == ()


def test_file_that_cannot_be_read(tmp_path):
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("link.png", "folder.png", "missing.png"):
        with pytest.raises(DataError, match=r"found (a folder|no file|a link to)"):
            image_files.load(tmp_path / name)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_is_what_pillow_does(orientation, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(corpus.oriented(orientation))
    read = image_files.read_image(path)
    assert read.orientation == orientation
    np.testing.assert_array_equal(read.pixels, corpus.color())
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    np.testing.assert_array_equal(image_files.upright(read.pixels, orientation), expected)


def test_orientation_of_a_tiff_and_one_that_does_not_exist(tmp_path):
    tag = [(0x0112, "H", 1, 6, True)]
    (tmp_path / "a.tif").write_bytes(
        corpus.by_tifffile(corpus.color(), photometric="rgb", extratags=tag)
    )
    assert image_files.load(tmp_path / "a.tif").orientation == 6
    (tmp_path / "b.png").write_bytes(corpus.oriented(9))
    assert image_files.load(tmp_path / "b.png").orientation == 1


def test_first_image_of_a_cameras_pair_is_taken(tmp_path):
    file = tmp_path / "a.jpg"
    first, second = (Image.fromarray(corpus.color(seed)) for seed in (0, 1))
    first.save(file, "MPO", save_all=True, append_images=[second])
    read = image_files.read_image(file)
    first.save(tmp_path / "b.jpg", "JPEG")
    alone = image_files.read_image(tmp_path / "b.jpg")
    np.testing.assert_array_equal(read.pixels, alone.pixels)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
@pytest.mark.parametrize("pixels", [corpus.color(), corpus.gray(), corpus.gray()[..., None]])
def test_written_pixels_come_back(suffix, pixels, tmp_path):
    path = tmp_path / f"a{suffix}"
    image_files.write(path, pixels)
    expected = pixels if pixels.ndim == 3 else pixels[..., None]
    np.testing.assert_array_equal(image_files.load(path).pixels, expected)


def test_gray_with_alpha_is_written_as_png(tmp_path):
    image_files.write(tmp_path / "a.png", corpus.with_alpha(corpus.disc(), 255))
    assert Image.open(tmp_path / "a.png").mode == "LA"
    np.testing.assert_array_equal(
        image_files.read_mask(tmp_path / "a.png").pixels[..., 0], corpus.disc()
    )


def test_jpeg_is_written_close_to_the_pixels(tmp_path):
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    pixels = np.stack(
        [np.tile(ramp, (64, 1)), np.tile(ramp[:, None], (1, 64)), np.full((64, 64), 90)], -1
    )
    image_files.write(tmp_path / "a.jpg", pixels.astype(np.uint8))
    read = image_files.read_image(tmp_path / "a.jpg").pixels
    assert np.abs(read.astype(int) - pixels).mean() < 3


def test_a_written_tiff_is_declared_as_cvc_clinicdb_declares_it(tmp_path):
    import tifffile

    image_files.write(tmp_path / "a.tif", corpus.color())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        page = file.pages.first
        assert (page.photometric, page.samplesperpixel, len(file.pages)) == (1, 3, 1)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("a.gif", corpus.gray()),
        ("a.png", corpus.gray().astype(float)),
        ("a.jpg", np.zeros((4, 4, 2), np.uint8)),
        ("a.png", np.zeros((4, 4, 4), np.uint8)),
        ("a.png", np.zeros(4, np.uint8)),
    ],
)
def test_what_cannot_be_written(name, pixels, tmp_path):
    with pytest.raises(ValueError, match="write: found"):
        image_files.write(tmp_path / name, pixels)

"""Folders of cases: check, prepare, phantom."""

import pytest

from keras_medseg import cli
from keras_medseg.data.store import open_store
from keras_medseg.phantoms.images import write_images


def test_check_lists_all_problems_and_exits_with_1(tmp_path, capsys):
    phantom = ["phantom", str(tmp_path), "--cases", "1", "--size", "40", "40", "26"]
    assert cli.main(phantom) == 0
    assert cli.main(["check", str(tmp_path)]) == 0
    volumes = sorted(tmp_path.rglob("*.nii*"))
    volumes[0].write_bytes(volumes[0].read_bytes()[:-20])
    volumes[1].unlink()
    capsys.readouterr()
    assert cli.main(["check", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert all(volume.name in printed for volume in volumes[:2])


def test_check_takes_the_gray_codes_of_a_masks_classes(tmp_path, capsys):
    write_images(tmp_path, cases=2, layout="knee", size=(64, 64))
    named = ["ligament=204", "background=51,102,153,255"]
    assert cli.main(["check", str(tmp_path)]) == 1
    assert "(--classes, or" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["check", str(tmp_path), "--classes", *named]) == 0
    assert cli.main(["check", str(tmp_path), "--classes", named[0]]) == 1
    capsys.readouterr()
    assert cli.main(["check", str(tmp_path), "--classes", "ligament"]) == 1
    assert "found 'ligament', expected NAME=CODE" in capsys.readouterr().err


def test_a_data_set_can_be_named_and_is_refused_where_it_is_unknown(tmp_path, capsys):
    write_images(tmp_path, cases=1, layout="CVC-ClinicDB", size=(48, 64))
    assert cli.main(["check", str(tmp_path), "--dataset", "image_folders"]) == 0
    assert cli.main(["check", str(tmp_path), "--dataset", "images"]) == 1
    assert "expected one of: brats, image_folders" in capsys.readouterr().err
    assert cli.main(["check", str(tmp_path), "--dataset", "brats", "--classes", "a=1"]) == 1
    assert "classes" in capsys.readouterr().err


def test_prepare_resamples_volumes_to_a_spacing(tmp_path):
    """24 voxels span 240 x 240 x 155 mm: 12 of 20 mm, and 15 of 10 mm and a half one."""
    made, store = tmp_path / "made", tmp_path / "store"
    phantom = ["phantom", str(made), "--cases", "1", "--layout", "nnUNet", "--size"]
    assert cli.main([*phantom, "24", "24", "24"]) == 0
    assert cli.main(["prepare", str(made), str(store), "--spacing", "20", "20", "10"]) == 0
    [case] = open_store(store).cases.values()
    assert case.full_shape == (12, 12, 16)


def test_a_store_among_the_data_is_refused(tmp_path, capsys):
    assert cli.main(["prepare", str(tmp_path), str(tmp_path)]) == 1
    assert "found the folder of the cases, expected one of its own" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("layout", "size", "dataset"),
    [
        ("BraTS2023", ("40", "40", "26"), "brats"),
        ("ISIC2018", ("48", "64"), "image_folders"),
        ("knee", ("64", "64"), "image_folders"),
    ],
)
def test_phantom_writes_every_synthetic_data_set(tmp_path, capsys, layout, size, dataset):
    arguments = [str(tmp_path), "--cases", "2", "--layout", layout, "--size", *size]
    assert cli.main(["phantom", *arguments]) == 0
    assert f"2 synthetic cases, layout {layout}" in capsys.readouterr().out
    assert cli.main(["prepare", str(tmp_path), str(tmp_path / "store"), "--dataset", dataset]) == (
        1 if layout == "knee" else 0  # its masks have classes, which only check takes
    )

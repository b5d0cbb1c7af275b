"""nifti.py against a corpus of damaged files, and against nibabel as an independent reader."""

import errno
import gzip
import json
import os
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from keras_medseg.data.formats import nifti

from .bad_nifti import GOOD, LPS, PACKED, REFUSED, SHAPE, WARNED, nifti_bytes, voxels

SHARED = Path(os.environ.get("KERAS_MEDSEG_SHARED", Path(__file__).parents[3] / "shared"))
REAL = SHARED / "data/BraTS2021/BraTS2021_00000/BraTS2021_00000_flair.nii.gz"


def _put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def _verdict(path: Path) -> str:
    """What became of a file: refused, changed or equal to the undamaged one."""
    try:
        array = nifti.load(path).array
    except nifti.NiftiError:
        return "refused"
    return "equal" if np.array_equal(array, voxels()) else "changed"


def test_corpus_is_large_and_names_are_unique():
    names = [bad.name for bad in (*REFUSED, *WARNED)]
    assert len(names) == len(set(names)) >= 36


@pytest.mark.parametrize("bad", REFUSED, ids=lambda bad: bad.name)
def test_damaged_file_is_refused_by_name_with_remedy(bad, tmp_path):
    path = tmp_path / bad.file
    bad.make(path)
    before = os.listdir(tmp_path)
    with pytest.raises(nifti.NiftiError) as caught:
        nifti.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: found ")
    assert bad.says in caught.value.found + caught.value.expected
    assert bad.remedy in caught.value.remedy
    assert "\n" not in message
    assert os.listdir(tmp_path) == before


@pytest.mark.parametrize("bad", WARNED, ids=lambda bad: bad.name)
def test_odd_file_is_read_with_a_remark(bad, tmp_path):
    path = tmp_path / bad.file
    bad.make(path)
    volume = nifti.load(path)
    assert volume.array.shape == SHAPE
    assert np.isfinite(volume.header.affine).all()
    [message] = volume.remarks
    assert message.startswith(f"{path}: found ")
    assert bad.says in message
    assert bad.remedy in message


def test_no_permission(tmp_path):
    path = _put(tmp_path, "secret.nii", GOOD)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(nifti.NiftiError, match="chmod"):
        nifti.load(path)


def test_every_flipped_byte_of_the_gzip_stream_is_refused(tmp_path):
    # Bytes 4 to 9 are the time, the level and the system of the packer: no checksum covers them
    # and no voxel depends on them.
    path = tmp_path / "flipped.nii.gz"
    for position in range(len(PACKED)):
        content = bytearray(PACKED)
        content[position] ^= 0xFF
        path.write_bytes(content)
        assert _verdict(path) == ("equal" if 4 <= position < 10 else "refused"), position


def test_no_flipped_bit_changes_a_voxel(tmp_path):
    path = tmp_path / "flipped.nii.gz"
    for position in range(0, len(PACKED), 3):
        content = bytearray(PACKED)
        content[position] ^= 1 << position % 8
        path.write_bytes(content)
        assert _verdict(path) != "changed", position


def test_every_cut_is_refused(tmp_path):
    for name, content in (("cut.nii.gz", PACKED), ("cut.nii", GOOD)):
        for length in range(0, len(content), 5):
            assert _verdict(_put(tmp_path, name, content[:length])) == "refused", (name, length)


@pytest.mark.parametrize("mask", [0xFF, 0x80, 0x01])
def test_damaged_header_raises_nothing_but_nifti_errors(mask, tmp_path):
    path = tmp_path / "header.nii"
    for position in range(352):
        content = bytearray(GOOD)
        content[position] ^= mask
        path.write_bytes(content)
        _verdict(path)


def _peak_bytes(path: Path) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(nifti.NiftiError):
            nifti.load(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "fields",
    [
        {"dim": (3, 32767, 32767, 32767, 1, 1, 1, 1)},
        {"dim": (3, 1000, 1000, 1000, 1, 1, 1, 1)},
        {"vox_offset": 2.0**30},
        {"vox_offset": 3e38},
    ],
    ids=["beyond_the_limit", "beyond_the_file", "far_offset", "endless_offset"],
)
@pytest.mark.parametrize("packed", [False, True])
def test_announced_size_takes_no_memory(fields, packed, tmp_path):
    content = nifti_bytes(voxels(), **fields)
    name = "huge.nii.gz" if packed else "huge.nii"
    path = _put(tmp_path, name, gzip.compress(content) if packed else content)
    assert _peak_bytes(path) < 500_000


@pytest.mark.parametrize("start", [GOOD, GOOD[:100], b""], ids=["after", "in_header", "alone"])
def test_zip_bomb_is_not_inflated(start, tmp_path):
    bomb = gzip.compress(start + bytes(100_000_000))
    assert len(bomb) < 200_000
    assert _peak_bytes(_put(tmp_path, "bomb.nii.gz", bomb)) < 500_000


def test_read_header_is_checked_without_reading_voxels(tmp_path):
    header = nifti.read_header(_put(tmp_path, "a.nii.gz", PACKED[:-8]))
    assert header.shape == SHAPE
    assert header.dtype == np.int16
    assert header.spacing_mm == (1, 1, 1)
    assert np.array_equal(header.affine, LPS)
    with pytest.raises(nifti.NiftiError, match="bitpix 8"):
        nifti.read_header(_put(tmp_path, "b.nii", nifti_bytes(voxels(), bitpix=8)))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_both_byte_orders_as_nibabel_reads_them(order, dtype, tmp_path):
    path = _put(tmp_path, "a.nii", nifti_bytes(voxels(dtype=dtype), order=order))
    volume = nifti.load(path)
    array, affine = volume.array, volume.header.affine
    assert array.dtype == np.dtype(dtype)
    assert array.dtype.isnative
    assert np.array_equal(array, voxels(dtype=dtype))
    assert np.array_equal(array, np.asanyarray(nib.load(path).dataobj))
    assert np.array_equal(affine, nib.load(path).affine)


@pytest.mark.parametrize("slope", [0, 1, float("nan")])
def test_integers_stay_integers_without_scaling(slope, tmp_path):
    content = nifti_bytes(voxels(), scl_slope=slope, scl_inter=0)
    array = nifti.load(_put(tmp_path, "a.nii", content)).array
    assert array.dtype == np.int16


@pytest.mark.parametrize(("slope", "intercept"), [(2, 0), (1, 5), (0.5, -3)])
def test_scaled_voxels_are_float32(slope, intercept, tmp_path):
    content = nifti_bytes(voxels(), scl_slope=slope, scl_inter=intercept)
    path = _put(tmp_path, "a.nii.gz", gzip.compress(content))
    array = nifti.load(path).array
    assert array.dtype == np.float32
    assert np.array_equal(array, voxels() * slope + intercept)
    assert np.array_equal(array, nib.load(path).get_fdata())


def test_axes_of_one_are_dropped_and_channels_kept(tmp_path):
    flat = _put(tmp_path, "flat.nii", nifti_bytes(voxels((4, 3, 2, 1))))
    assert nifti.load(flat).array.shape == (4, 3, 2)
    assert nifti.load(flat, dimensions=4).array.shape == (4, 3, 2, 1)
    deep = _put(tmp_path, "deep.nii", nifti_bytes(voxels((4, 3, 2, 5))))
    assert np.array_equal(nifti.load(deep, dimensions=4).array, voxels((4, 3, 2, 5)))
    with pytest.raises(nifti.NiftiError, match="3 dimensions"):
        nifti.load(_put(tmp_path, "a.nii", GOOD), dimensions=4)


def test_several_gzip_members_are_one_file(tmp_path):
    # bgzip and pigz write members one after the other; RFC 1952 joins them.
    content = gzip.compress(GOOD[:500]) + gzip.compress(GOOD[500:]) + gzip.compress(b"")
    assert _verdict(_put(tmp_path, "members.nii.gz", content)) == "equal"
    assert _verdict(_put(tmp_path, "members.nii.gz", content[:-1])) == "refused"


def test_header_extensions_are_skipped(tmp_path):
    content = GOOD[:352] + bytes(64) + GOOD[352:]
    longer = bytearray(content)
    longer[108:112] = np.float32(416).tobytes()
    assert _verdict(_put(tmp_path, "a.nii", bytes(longer))) == "equal"
    assert _verdict(_put(tmp_path, "a.nii.gz", gzip.compress(bytes(longer)))) == "equal"


def test_nifti_2_is_read(tmp_path):
    path = tmp_path / "two.nii.gz"
    nib.save(nib.Nifti2Image(voxels(), LPS), path)
    assert _verdict(path) == "equal"
    assert np.array_equal(nifti.read_header(path).affine, LPS)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64", "int64"])
def test_round_trip_keeps_voxels_and_affine_to_the_bit(name, dtype, tmp_path):
    affine = np.array(
        [[-1.0, -0.0, 0.0, -0.0], [0.0, -1.0, -0.0, 239.0], [-0.0, 0.0, 1.0, 0.0], [0, 0, 0, 1.0]]
    )
    nifti.write_volume(tmp_path / name, voxels(dtype=dtype), affine)
    volume = nifti.load(tmp_path / name)
    array, found = volume.array, volume.header.affine
    assert array.dtype == np.dtype(dtype)
    assert np.array_equal(array, voxels(dtype=dtype))
    assert found.tobytes() == affine.tobytes()
    other = nib.load(tmp_path / name)
    assert np.array_equal(np.asanyarray(other.dataobj), array)
    assert np.array_equal(other.affine, affine)
    assert other.header.get_xyzt_units()[0] == "mm"
    assert np.allclose(other.get_qform(coded=True)[0], affine)
    assert np.allclose(other.get_sform(coded=True)[0], affine)


def test_oblique_affine_survives(tmp_path):
    turn = np.deg2rad(20)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    affine[:3, :3] *= [0.5, 0.75, 3]
    nifti.write_volume(tmp_path / "a.nii", voxels(), affine)
    header = nifti.read_header(tmp_path / "a.nii")
    assert np.allclose(header.affine, affine, atol=1e-6)
    assert np.allclose(header.spacing_mm, (0.5, 0.75, 3))


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 2), (4, 1)])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_both_forms_and_their_codes_are_copied(codes, kind, tmp_path):
    """A viewer may take the sform, the qform or the voxel sizes; the copy fits in all of them."""
    sform = np.array([[0, -1.5, 0, 3], [2, 0, 0, 5], [0, 0, 3, -9], [0, 0, 0, 1.0]])
    qform = np.diag([-2.0, 1.5, 3, 1])
    qform[:3, 3] = 1, 2, 30
    source = kind(np.ones((4, 3, 2), np.int16), None)
    source.header.set_qform(qform, codes[1])
    source.header.set_sform(sform, codes[0])
    source.header["pixdim"][1:4] = 2, 1.5, 3
    source.header.set_xyzt_units("mm")
    nib.save(source, tmp_path / "source.nii")
    header = nifti.read_header(tmp_path / "source.nii")
    assert json.loads(json.dumps(header.forms)) == header.forms
    labels = np.ones((4, 3, 2), np.uint8)
    nifti.write_volume(tmp_path / "map.nii", labels, header.affine, forms=header.forms)
    ours, theirs = nib.load(tmp_path / "map.nii"), nib.load(tmp_path / "source.nii")
    for field in ("sform_code", "qform_code"):
        assert ours.header[field] == theirs.header[field]
    for field in ("srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_z"):
        np.testing.assert_allclose(ours.header[field], theirs.header[field])
    np.testing.assert_allclose(ours.header["pixdim"][:4], theirs.header["pixdim"][:4])
    np.testing.assert_allclose(ours.affine, theirs.affine)
    np.testing.assert_allclose(ours.header.get_qform(), theirs.header.get_qform())
    nifti.check_grid(tmp_path / "map.nii", header.shape, header.affine, of="source")


def test_a_qform_that_cannot_be_used_is_not_copied(tmp_path):
    source = nib.Nifti1Image(np.ones((4, 3, 2), np.int16), np.eye(4))
    source.header.set_xyzt_units("mm")
    source.header["quatern_b"] = np.nan
    source.header["qform_code"], source.header["vox_offset"] = 1, 352
    (tmp_path / "a.nii").write_bytes(source.header.binaryblock + bytes(4) + bytes(48))
    header = nifti.read_header(tmp_path / "a.nii")
    assert (header.forms["qform_code"], header.forms["quatern_b"]) == (0, 0)


def test_sheared_affine_is_kept_without_a_contradicting_qform(tmp_path):
    affine = np.eye(4)
    affine[0, 1] = 0.5
    nifti.write_volume(tmp_path / "a.nii", voxels(), affine)
    volume = nifti.load(tmp_path / "a.nii")
    assert np.array_equal(volume.header.affine, affine)
    assert volume.remarks == ()


def test_equal_arrays_give_equal_bytes(tmp_path):
    for name in ("a.nii.gz", "other_name.nii.gz"):
        nifti.write_volume(tmp_path / name, voxels(), LPS)
    nifti.write_volume(tmp_path / "c.nii.gz", np.asfortranarray(voxels()), LPS)
    contents = {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(contents) == 1


def test_channels_booleans_and_dtype_are_written(tmp_path):
    nifti.write_volume(tmp_path / "a.nii", voxels((4, 3, 2, 5)), LPS)
    assert np.array_equal(nifti.load(tmp_path / "a.nii", dimensions=4).array, voxels((4, 3, 2, 5)))
    nifti.write_volume(tmp_path / "b.nii", voxels() > 99, LPS)
    assert nifti.read_header(tmp_path / "b.nii").dtype == np.uint8
    nifti.write_volume(tmp_path / "c.nii", voxels(dtype="float64"), LPS, dtype="uint8")
    assert np.array_equal(nifti.load(tmp_path / "c.nii").array, voxels(dtype="uint8"))


@pytest.mark.parametrize(
    ("array", "affine", "dtype", "message"),
    [
        (voxels((4, 3)), LPS, None, "array: found shape"),
        (voxels((0, 3, 2)), LPS, None, "array: found shape"),
        (voxels(), np.eye(3), None, "affine: found"),
        (voxels(), np.zeros((4, 4)), None, "affine: found"),
        (voxels(), np.full((4, 4), np.nan), None, "affine: found"),
        (voxels(), LPS, "float16", "dtype: found float16"),
        (voxels(dtype="complex64"), LPS, None, "dtype: found complex64"),
        (voxels() + 200, LPS, "uint8", "uint8 cannot hold"),
        (voxels() + 0.5, LPS, "int16", "int16 cannot hold"),
        (voxels() * np.nan, LPS, "uint8", "uint8 cannot hold"),
        (voxels() * np.nan, LPS, None, "not finite"),
        (voxels() * 1e300, LPS, "float32", "not finite as float32"),
    ],
)
def test_what_nifti_cannot_hold_is_a_value_error(array, affine, dtype, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        nifti.write_volume(tmp_path / "a.nii", array, affine, dtype=dtype)
    assert os.listdir(tmp_path) == []


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = _put(tmp_path, "a.nii.gz", PACKED)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(nifti.NiftiError, match=r"a\.nii\.gz: found .*No space left.*Free space"):
        nifti.write_volume(path, voxels(seed=1), LPS)
    assert os.listdir(tmp_path) == ["a.nii.gz"]
    assert path.read_bytes() == PACKED


def test_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        nifti.write_volume(tmp_path / "a.nii", voxels(), LPS)
    assert os.listdir(tmp_path) == []


def test_write_where_no_folder_can_be_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(nifti.NiftiError, match=r"file/a\.nii: found .*choose another folder"):
        nifti.write_volume(tmp_path / "file/a.nii", voxels(), LPS)
    with pytest.raises(nifti.NiftiError, match="suffix"):
        nifti.write_volume(tmp_path / "a.png", voxels(), LPS)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("codes", ["LPS", "RAS", "RPI", "PIR", "SAL"])
def test_reorient_moves_voxels_to_lps_and_back(codes):
    # A voxel of value v sits at the same place in the body before and after.
    affine = _affine_of(codes)
    array = voxels((4, 3, 2, 2))
    turned = nifti.reorient(array, affine)
    for index in np.ndindex(array.shape[:3]):
        x, y, z = nib.affines.apply_affine(affine, index)
        corner = nib.affines.apply_affine(affine, [n - 1 for n in array.shape[:3]])
        low, high = np.minimum(corner, affine[:3, 3]), np.maximum(corner, affine[:3, 3])
        place = (int(high[0] - x), int(high[1] - y), int(z - low[2]))
        assert np.array_equal(turned[place], array[index])
    assert nifti.axis_codes(affine) == tuple(codes)
    assert np.array_equal(nifti.restore(turned, tuple(codes)), array)


def _affine_of(codes: str) -> np.ndarray:
    """Unit steps along the named directions; nibabel's world is R, A, S."""
    steps = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, code in enumerate(codes):
        direction, sign = steps[code]
        affine[direction, axis] = sign
    return affine


def test_corner_distance():
    # 3 x 4 x 12 mm away in translation: sqrt(9 + 16 + 144) = 13.
    moved = LPS.copy()
    moved[:3, 3] += (3, 4, 12)
    assert nifti.corner_distance_mm(LPS, moved, SHAPE) == pytest.approx(13)
    # Voxels of 1.01 mm along the first axis of 7: the far corner is 6 x 0.01 mm away.
    wider = LPS.copy()
    wider[0, 0] *= 1.01
    assert nifti.corner_distance_mm(LPS, wider, SHAPE) == pytest.approx(0.06)
    assert nifti.corner_distance_mm(LPS, LPS + -0.0, SHAPE) == 0


@pytest.mark.skipif(not REAL.exists(), reason="the real cases are not here")
def test_real_case_as_nibabel_reads_it():
    volume = nifti.load(REAL)
    array, affine = volume.array, volume.header.affine
    other = nib.load(REAL)
    assert array.shape == (240, 240, 155)
    assert np.array_equal(array, np.asanyarray(other.dataobj))
    assert np.array_equal(affine, other.affine)


@pytest.mark.parametrize("sform_code", [0, 1])
def test_a_qfac_of_0_is_1(sform_code, tmp_path):
    """nifti1.h: "if qfac (pixdim[0]) is 0, set it to 1"."""
    path = tmp_path / "x.nii"
    nifti.write_volume(path, np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    content = bytearray(path.read_bytes())
    content[76:80] = bytes(4)  # pixdim[0]
    content[254:256] = sform_code.to_bytes(2, "little")
    path.write_bytes(content)
    header = nifti.read_header(path)
    np.testing.assert_array_equal(header.affine, np.eye(4))
    assert header.remarks == ()


@pytest.mark.parametrize(
    ("version", "place", "content", "found"),
    [
        (1, 347, b"\x80", r"magic b'n\+1\\x80', expected b'n\+1'"),
        (1, 254, b"\xa5\x01", "sform_code 421, expected a code from 0 to 5"),
        (1, 252, b"\xff\xff", "qform_code -1, expected a code from 0 to 5"),
        (2, 7, b"\x02", r"magic b'n\+2\\x02', expected b'n\+2'"),
        (2, 10, b"\x0a", r"eol_check \[13, 10, 10, 10\], expected \[13, 10, 26, 10\]"),
    ],
)
def test_fields_that_no_program_writes_so_are_refused(version, place, content, found, tmp_path):
    """Damage that nibabel passes over, with other forms, or refuses as a file of no known kind."""
    path = tmp_path / "x.nii"
    kind = nib.Nifti1Image if version == 1 else nib.Nifti2Image
    image = kind(np.zeros((2, 3, 4), np.int16), np.eye(4))
    nib.save(image, path)
    damaged = bytearray(path.read_bytes())
    damaged[place : place + len(content)] = content
    path.write_bytes(damaged)
    with pytest.raises(nifti.NiftiError, match=found):
        nifti.read_header(path)


def test_voxels_beyond_float32_are_refused(tmp_path):
    path = tmp_path / "x.nii.gz"
    nifti.write_volume(path, np.array([[[0, 1e302]]]), np.eye(4))
    with pytest.raises(nifti.NiftiError, match=r"voxels from 0 to 1e\+302, expected numbers of f"):
        nifti.load(path)


@pytest.mark.parametrize(("shape", "kept"), [((4, 3, 2, 1, 5), 4), ((4, 3, 2, 1, 1), 3)])
def test_axes_of_length_1_are_dropped_wherever_they_stand(shape, kept, tmp_path):
    values = np.arange(np.prod(shape), dtype=np.int16).reshape(shape, order="F")
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "x.nii.gz")
    found = nifti.load(tmp_path / "x.nii.gz", dimensions=kept).array
    np.testing.assert_array_equal(found, values.squeeze())

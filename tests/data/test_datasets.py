"""The kinds of data sets: found, set up, recognized, and true to their contract."""

import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest

from keras_medseg.data import datasets
from keras_medseg.data.datasets.brats import Brats
from keras_medseg.data.datasets.image_folders import ImageFolders
from keras_medseg.data.formats import image_files, nifti
from keras_medseg.errors import DataError
from keras_medseg.evaluation import metrics
from keras_medseg.phantoms.images import write_images

METRICS = metrics.METRICS.keys()
BRATS_FILE = "HGG/Brats17_TCIA_101_1/Brats17_TCIA_101_1_flair.nii.gz"
KNEE = {"tibia": (51,), "ligament": (204, 255), "background": (102, 153)}
LIVER = {
    "channels": ("ct",),
    "label_codes": {"liver": 1, "tumor": 2},
    "region_codes": {"whole": (1, 2), "tumor": (2,)},
    "rest_codes": {"whole": 1, "tumor": 2},
}
OPTIONS = [
    ("brats", {}),
    *(("brats", {"release": name}) for name in ("BraTS2024-GLI", "BraTS2024-PED")),
    ("brats", {"release": "BraTS2024-MEN-RT", "spacing_mm": (1, 1, 2)}),
    ("image_folders", {}),
    ("image_folders", {"classes": KNEE}),
    ("volume_folders", LIVER),
]

# A kind of data set as short as one can be: NAME.npy beside NAME.labels.npy.
TOY = """
from dataclasses import dataclass

import numpy as np

from keras_medseg.data import checks
from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.datasets.base import Dataset, Listing
from keras_medseg.errors import DataError


@dataclass(frozen=True)
class Toy(Dataset):
    suffix = ".npy"
    elements = "voxels"
    metrics = ("dice",)
    labels = {1: "kidney", 2: "tumor"}
    regions = {"kidney": (1, 2), "tumor": (2,)}

    @classmethod
    def recognizes(cls, folder):
        return any(folder.glob("*.toy.npy"))

    @classmethod
    def layout_examples(cls):
        return ["1.toy.npy, 1.labels.npy"]

    def find(self, folder, *, labelled=True):
        cases = []
        for path in sorted(folder.glob("*.toy.npy")):
            id = path.name.removesuffix(".toy.npy")
            labels = folder / f"{id}.labels.npy"
            if labelled and not labels.exists():
                raise DataError(labels, found="no file", expected="labels", remedy="Add them.")
            cases.append(Case(id, "toy", (path,), labels if labels.exists() else None, id))
        return Listing(cases)

    def read(self, case):
        image = np.load(case.images[0])
        if image.ndim != 4:
            found = f"shape {image.shape}"
            raise DataError(case.images[0], found=found, expected="4 axes", remedy="Mend it.")
        labels = None if case.labels is None else np.load(case.labels)
        return CaseArrays(image, labels, np.eye(4), ("L", "P", "S"))

    def read_labels(self, path, case):
        return np.load(path)

    def write_labels(self, path, labels, case):
        np.save(path, labels)
"""


def _touch(folder: Path, *names: str) -> Path:
    """Empty files: recognition reads none."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The package with one more file in its folder, and a folder with three cases of its kind."""
    (tmp_path / "kinds").mkdir()
    (tmp_path / "kinds/toy.py").write_text(TOY)
    (tmp_path / "kinds/_shared.py").write_text("")
    monkeypatch.setattr(datasets, "__path__", [*datasets.__path__, str(tmp_path / "kinds")])
    monkeypatch.delitem(sys.modules, "keras_medseg.data.datasets.toy", raising=False)
    (tmp_path / "data").mkdir()
    for number in (1, 2, 3):
        image = np.random.default_rng(number).integers(1, 9, (4, 3, 2, 1))
        np.save(tmp_path / f"data/{number}.toy.npy", image)
        np.save(tmp_path / f"data/{number}.labels.npy", (image[..., 0] > 4).astype(np.uint8))
    return tmp_path / "data"


class TestNames:
    def test_every_file_but_the_contract_is_a_kind(self):
        folder = Path(datasets.__file__).parent
        files = {path.stem for path in folder.glob("*.py")} - {"__init__", "base"}
        assert datasets.names() == sorted(name for name in files if not name.startswith("_"))
        assert {"brats", "image_folders"} <= set(datasets.names())

    def test_none_is_imported_before_it_is_asked_for(self):
        code = (
            "import sys; from keras_medseg.data import datasets; datasets.names(); "
            "print(*(m for m in sys.modules if m.startswith('keras_medseg.data.datasets.')))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout == "keras_medseg.data.datasets.base\n"

    def test_a_new_file_is_a_new_kind(self, toy):
        assert datasets.names() == ["brats", "image_folders", "toy", "volume_folders"]
        assert datasets.recognize(toy) == "toy"
        kind = datasets.get("toy")
        assert kind == datasets.get("toy")
        assert kind.targets == {"kidney": (1, 2), "tumor": (2,)}

    @pytest.mark.parametrize("text", ["", TOY + "\n\nclass Another(Toy):\n    pass\n"])
    def test_a_file_defines_one_kind(self, text, toy):
        (toy.parent / "kinds/toy.py").write_text(text)
        with pytest.raises(TypeError, match=r"toy\.py: found \d subclasses of Dataset, expected"):
            datasets.get("toy")


class TestGet:
    def test_options_are_the_fields_of_the_class(self):
        assert datasets.get("brats") == Brats()
        assert datasets.get("image_folders", classes=KNEE) == ImageFolders(KNEE)

    def test_unknown_names_are_answered_with_the_nearest(self):
        with pytest.raises(ValueError, match=r"data set: found 'brat', .* mean 'brats'\?"):
            datasets.get("brat")
        with pytest.raises(ValueError, match="data set: found 'base', expected one of: brats"):
            datasets.get("base")

    def test_options_that_a_kind_does_not_take_are_named(self):
        with pytest.raises(
            ValueError, match="option of data set brats: found 'classes', expected one of: release,"
        ):
            datasets.get("brats", classes=KNEE)
        with pytest.raises(ValueError, match=r"found 'class', .* mean 'classes'\?"):
            datasets.get("image_folders", **{"class": KNEE})


class TestRecognize:
    @pytest.mark.parametrize(
        "file",
        [
            BRATS_FILE,
            "BraTS20_Training_001_seg.nii",
            "a/b/c/d/e/BraTS-GLI-00000-000/BraTS-GLI-00000-000-t2f.nii.gz",
            "BraTS-PED-00001-000/BraTS-PED-00001-000-t2f.nii.gz",
            "Task01_BrainTumour/imagesTs/BRATS_001.nii.gz",
            "case/VSD.Brain.XX.O.MR_T1c.54514/VSD.Brain.XX.O.MR_T1c.54514.nii",
            "BraTS2021_00017/BraTS2021_00017_flair.nii/00000057_brain_flair.nii",
        ],
    )
    def test_brats(self, file, tmp_path):
        _touch(tmp_path, "readme.txt", "images/notes.txt", "scans/other.nii.gz", file)
        assert datasets.recognize(tmp_path) == "brats"

    def test_brats_in_folders_that_are_linked_in_a_circle(self, tmp_path):
        (tmp_path / "again").symlink_to(tmp_path)
        assert datasets.recognize(_touch(tmp_path, BRATS_FILE)) == "brats"

    @pytest.mark.parametrize(
        "files",
        [
            ["Original/1.tif", "Ground Truth/1.tif"],
            ["PNG/original/1.png", "PNG/ground truth/1.png"],
            ["Training_Input/ISIC_0000003.jpg"],
            ["images/a.png", "masks/a.png"],
            ["a/b/c/Images/a.bmp"],
            ["images/a.png", "volumes/knee.nii.gz"],
            ["manifest.csv", "scans/knee.nii.gz"],
        ],
    )
    def test_images(self, files, tmp_path):
        assert datasets.recognize(_touch(tmp_path, *files)) == "image_folders"

    @pytest.mark.parametrize("name", ["list.csv", "LIST.CSV"])
    def test_a_manifest_may_be_given_itself(self, name, tmp_path):
        assert datasets.recognize(_touch(tmp_path, name) / name) == "image_folders"

    @pytest.mark.parametrize(
        "files",
        [
            [],
            ["scans/patient_1.nii.gz", "scans/patient_1_seg.nii.gz"],
            ["images/patient_1.nii.gz", "masks/patient_1.nii.gz"],
            ["images/notes.txt"],
            ["imagesTr/liver_1.nii.gz", "labelsTr/liver_1.nii.gz"],
            ["photos/a.png"],
            ["1/2/3/4/5/6/7/BraTS2021_00017_flair.nii.gz"],
        ],
    )
    def test_nothing_known_shows_what_is_expected_beside_what_lies_there(self, files, tmp_path):
        with pytest.raises(DataError) as caught:
            datasets.recognize(_touch(tmp_path, *files))
        text = str(caught.value)
        assert text.startswith(f"{tmp_path}: found no files with the names of a data set")
        assert "expected one of brats, image_folders, volume_folders (brats: BraTS and" in text
        assert "Give the folder of the cases" in text
        assert "`--dataset NAME`" in text
        for line in ("BraTS-GLI-00000-000-t2f.nii.gz", "BRATS_001.nii.gz", "masks/a.png", "image,"):
            assert line in text
        assert Path(files[0]).parts[0] in text if files else "(empty)" in text
        tree = text.splitlines()[1:]
        assert max(map(len, tree)) <= 100
        assert not any("..." in line.split("|")[0].replace(", ...", "") for line in tree)

    @pytest.mark.parametrize(
        ("file", "verdict"),
        [
            ("BraTS2021_Training_Data.tar", r"1 file \.tar, .* Unpack the archives\."),
            ("archive.ZIP", r"1 file \.zip, .* Unpack the archives\."),
            ("a/VSD.Brain.XX.O.MR_T1.54512/VSD.Brain.XX.O.MR_T1.54512.mha", r"1 file \.mha.* Conv"),
            ("data/volume_1_slice_0.h5", r"1 file \.h5, .* Convert other formats to \.nii\.gz\."),
            ("BraTS2021_00000/BraTS2021_00000_t1.nii.gz.part", r"1 file \.part, .* Fetch again"),
            ("1.2.840.dcm", r"1 file \.dcm, .* Convert"),
        ],
    )
    def test_archives_and_foreign_formats_are_named(self, file, verdict, tmp_path):
        with pytest.raises(DataError, match=rf"is known, but {verdict}"):
            datasets.recognize(_touch(tmp_path, file))

    def test_hidden_files_and_strays_never_decide(self, tmp_path):
        _touch(tmp_path, "images/a.png", "._scan.nii.gz", "__MACOSX/x.nii", "atlas.nii.gz")
        assert datasets.recognize(_touch(tmp_path, ".ipynb_checkpoints/x.nii")) == "image_folders"
        problems = datasets.get("image_folders").check(tmp_path).problems
        [stray] = [problem for problem in problems if ".nii" in problem.message]
        assert "atlas.nii.gz: found another file, expected files in" in stray.message

    def test_files_with_foreign_names_are_still_checked_when_the_kind_is_named(self, tmp_path):
        nifti.write_volume(tmp_path / "a.nii.gz", np.ones((3, 3, 3), np.int16), np.eye(4))
        report = datasets.get("brats").check(tmp_path)
        assert [problem.severity for problem in report.problems] == ["warning", "error"]
        assert "found 1 NIfTI file and no case with a name of BraTS" in report.problems[1].message

    def test_both_kinds(self, tmp_path):
        _touch(tmp_path, BRATS_FILE, "images/a.png")
        with pytest.raises(
            DataError, match=r"several kinds: brats, image_folders, .*`--dataset brats`\."
        ):
            datasets.recognize(tmp_path)

    def test_no_folder(self, tmp_path):
        with pytest.raises(DataError, match=r"no such folder, .*BraTS and.*; .*images with masks"):
            datasets.recognize(tmp_path / "nowhere")
        with pytest.raises(DataError, match="found a file"):
            datasets.recognize(_touch(tmp_path, "a.nii.gz") / "a.nii.gz")

    def test_folder_that_cannot_be_read(self, tmp_path, monkeypatch):
        def refuse(folder):
            raise PermissionError(13, "Permission denied", str(folder))

        monkeypatch.setattr(Path, "iterdir", refuse)
        with pytest.raises(DataError, match=r"found the error 'Permission denied'.*chmod"):
            datasets.recognize(tmp_path)


@pytest.mark.parametrize(("name", "options"), OPTIONS)
class TestContract:
    def test_regions_and_targets_are_made_of_the_labels(self, name, options):
        kind = datasets.get(name, **options)
        assert set(kind.labels) == set(range(1, len(kind.labels) + 1))
        assert all(kind.labels.values())
        assert kind.regions
        assert {code for codes in kind.regions.values() for code in codes} == set(kind.labels)
        assert kind.regions.items() <= kind.targets.items()
        for codes in kind.targets.values():
            assert codes
            assert set(codes) <= set(kind.labels)

    def test_nesting_goes_from_the_outermost_region_in(self, name, options):
        kind = datasets.get(name, **options)
        regions = [set(kind.regions[region]) for region in kind.nesting]
        for outer, inner, code in zip(regions, [*regions[1:], set()], kind.nesting.values()):
            assert inner < outer
            assert code in outer - inner
            within = [set(codes) for codes in kind.regions.values() if set(codes) < outer]
            assert outer.difference(*within) in ({code}, set())
        if not kind.nesting:
            assert sum(map(len, kind.regions.values())) == len(kind.labels)

    def test_what_is_written_and_scored_is_known(self, name, options):
        kind = datasets.get(name, **options)
        assert kind.suffix in {".nii.gz", *image_files.SUFFIXES}
        assert kind.elements in {"voxels", "pixels"}
        assert kind.metrics
        assert set(kind.metrics) <= METRICS
        assert len(set(kind.channels)) == len(kind.channels)

    def test_objects_are_equal_frozen_and_can_be_sent_to_other_processes(self, name, options):
        kind = datasets.get(name, **options)
        sent = pickle.loads(pickle.dumps(kind))
        assert sent == kind == datasets.get(name, **options)
        assert hash(sent) == hash(kind)
        assert sent.labels == kind.labels
        assert pickle.loads(pickle.dumps(kind.read)).__self__ == kind
        with pytest.raises(FrozenInstanceError):
            kind.suffix = ".txt"

    def test_examples_fit_into_their_column(self, name, options):
        lines = datasets.get(name, **options).layout_examples()
        assert lines
        assert max(map(len, lines)) <= 46


class TestCheckAsInherited:
    def test_sound_cases(self, toy):
        seen = []
        report = datasets.get("toy").check(toy, progress=lambda *step: seen.append(step))
        assert report.ok
        assert report.problems == []
        assert seen == [(1, 3, "1"), (2, 3, "2"), (3, 3, "3")]
        assert [case.id for case in report.cases] == ["1", "2", "3"]
        assert "1.toy.npy, 1.labels.npy" in report.trees

    def test_all_cases_are_read(self, toy):
        for number in (1, 3):
            np.save(toy / f"{number}.toy.npy", np.ones((4, 3)))
        report = datasets.get("toy").check(toy)
        assert [problem.case_id for problem in report.problems] == ["1", "3"]
        assert all("found shape (4, 3), expected" in p.message for p in report.problems)

    def test_equal_cases(self, toy):
        (toy / "3.toy.npy").write_bytes((toy / "1.toy.npy").read_bytes())
        [problem] = datasets.get("toy").check(toy).problems
        assert problem.severity == "warning"
        assert "3.toy.npy: found the voxels of" in problem.message

    def test_an_error_of_find_is_the_only_problem(self, toy):
        (toy / "2.labels.npy").unlink()
        report = datasets.get("toy").check(toy)
        assert not report.ok
        assert [problem.message for problem in report.problems] == [
            f"{toy / '2.labels.npy'}: found no file, expected labels. Add them."
        ]
        for number in (1, 3):
            (toy / f"{number}.labels.npy").unlink()
        assert datasets.get("toy").check(toy).problems == []  # a set without any labels

    def test_no_folder(self, toy):
        with pytest.raises(DataError, match="found no such folder"):
            datasets.get("toy").check(toy / "nowhere")


def test_files_of_another_kind_than_the_recipe_names_are_refused(tmp_path):
    """As by `train OWN --recipe PAPER`; of a folder that no kind knows, the kind speaks itself."""
    write_images(tmp_path / "frames", cases=1, layout="CVC-ClinicDB", size=(48, 64))
    words = "found 'brats', expected 'image_folders', .* --set data.dataset=image_folders"
    with pytest.raises(ValueError, match=words):
        datasets.refuse_another_kind("brats", tmp_path / "frames")
    datasets.refuse_another_kind("image_folders", tmp_path / "frames")
    (tmp_path / "empty").mkdir()
    datasets.refuse_another_kind("brats", tmp_path / "empty")

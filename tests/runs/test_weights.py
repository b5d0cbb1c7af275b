"""Weights in archives: packed, installed and loaded whole, or refused in one line."""

import hashlib
import http.server
import io
import json
import shutil
import subprocess
import sys
import threading
import zipfile

import keras
import numpy as np
import pandas as pd
import pytest

import keras_medseg
from keras_medseg import cli, recipe
from keras_medseg.errors import DataError
from keras_medseg.runs import initial, installed, packages, packing
from keras_medseg.runs.run_folder import RunFolder

from .. import known_runs
from ..known_runs import RAS

NAME = "test/phantom-fold0"
FACTS = {
    "experiment": None,
    "profile": "train",
    "changes": {},
    "data": "phantom in the layout of BraTS2021",
    "data_folder": "somewhere/secret/cases",
    "store": "somewhere/secret/store",
    "fingerprint": "f" * 64,
    "training": ["c", "d", "e"],
    "validation": ["a", "b"],
    "duplicates": {},
    "leaking_groups": [],
    "datasets": ["BraTS2021"],
    "phantom": True,
}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_MEDSEG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def run(tmp_path):
    """A finished run of one network; its Dice is 0.25 and 0.75."""
    chosen = recipe.override(known_runs.SLICES, {"train.keep": "best"})
    made = known_runs.write_run(tmp_path / "run", known_runs.next_voxel(), chosen, facts=FACTS)
    names = ("dice", "sensitivity", "specificity", "hd95_mm")
    rows = [
        {"variant": "main", "case": case, "group": case, "region": "WT"}
        | dict.fromkeys(names, score)
        for case, score in (("a", 0.25), ("b", 0.75))
    ]
    made.write_scores(pd.DataFrame(rows))
    return made


@pytest.fixture
def archive(tmp_path, run):
    packing.pack(run, tmp_path / "weights.zip", name=NAME, license="CC0", card="Drawn by hand.")
    return tmp_path / "weights.zip"


def content(archive):
    with zipfile.ZipFile(archive) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def rewrite(archive, files, **changes):
    """The archive with other files, whose manifest has their checksums and `changes`."""
    manifest = json.loads(files[packages.MANIFEST])
    manifest |= changes
    if "files" not in changes:
        manifest["files"] = {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in files.items()
            if name != packages.MANIFEST
        }
    manifest.pop("sha256")
    manifest["sha256"] = packages.seal(manifest)
    store(archive, {**files, packages.MANIFEST: json.dumps(manifest).encode()})


def store(archive, files, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(archive, "w", compression) as opened:
        for name, data in files.items():
            opened.writestr(name, data)


def refused(source, words, home, **options):
    """Neither installed nor loaded; the message is one line that names the source."""
    home.mkdir(exist_ok=True)
    for attempt in (lambda: installed.install(str(source), **options), lambda: load(source)):
        with pytest.raises(DataError, match=words) as error:
            attempt()
        assert "\n" not in str(error.value)
        assert str(error.value).startswith(str(source))
    assert [path.name for path in home.iterdir()] in ([], ["lock"])


def load(source):
    return keras_medseg.load(str(source))


def test_packed_installed_and_loaded_weights_predict_as_their_run(tmp_path, run, archive, home):
    image = np.random.default_rng(0).integers(1, 17, (*known_runs.SHAPE, 4), np.int16)
    expected = load(run.path)(image, affine=RAS)
    assert expected.labels.any()
    assert installed.install(str(archive)) == f"{NAME}: installed in {home / NAME}"
    assert installed.install(str(archive)) == f"{NAME}: already in {home / NAME}"
    for source in (NAME, archive, home / NAME):
        found = load(source)(image, affine=RAS)
        np.testing.assert_array_equal(found.labels, expected.labels)
        np.testing.assert_array_equal(found.probabilities["WT"], expected.probabilities["WT"])
    known_runs.write_volumes(tmp_path / "cases", 1)
    for source, out in ((NAME, "by_name"), (str(run.path), "by_run")):
        assert cli.main(["predict", source, str(tmp_path / "cases"), str(tmp_path / out)]) == 0
    [one], [other] = ([*(tmp_path / out).glob("*.gz")] for out in ("by_name", "by_run"))
    assert one.read_bytes() == other.read_bytes()


def test_an_archive_says_what_is_in_it_and_nothing_of_the_machine(archive, run):
    files = content(archive)
    assert sorted(files) == [
        "card.md",
        "package.json",
        "recipe.json",
        "run.json",
        "scores.csv",
        "training/main-WT/model.keras",
        "variants/main.json",
    ]
    manifest = json.loads(files["package.json"])
    assert (manifest["name"], manifest["license"]) == (NAME, "CC0")
    assert manifest["input"]["channels"] == ["flair", "t1", "t1ce", "t2"]
    assert manifest["input"]["normalization"] == "none"
    assert manifest["output"]["labels"]["4"] == "enhancing"
    [network] = manifest["output"]["networks"]
    assert network == {"regions": ["WT"], "file": "training/main-WT/model.keras"}
    assert manifest["network"]["parameters"] == 9 * 4 + 1
    [dice] = [row for row in manifest["scores"] if row["metric"] == "dice"]
    assert (dice["region"], dice["n"], dice["mean"]) == ("WT", 2, 0.5)
    assert (dice["low"], dice["high"]) == (0.25, 0.75)
    facts = json.loads(files["run.json"])
    assert (facts["training"], facts["validation"]) == (["c", "d", "e"], ["a", "b"])
    assert not any(b"secret" in data or str(run.path).encode() in data for data in files.values())
    assert b"optimizer" not in files["training/main-WT/model.keras"]


def test_weights_for_images_keep_what_was_measured_on_the_training_images(tmp_path, home):
    fitted = {"mean": [0.25, 0.5, 0.75], "std": [1.0, 2.0, 4.0]}
    facts = {**FACTS, "datasets": ["images"], "phantom": False, "test": ["t"], "fold": 2}
    network = known_runs.next_voxel(channels=3, scale=1.0)
    run = known_runs.write_run(
        tmp_path / "run", network, known_runs.IMAGES, fitted=fitted, facts=facts
    )
    run.write_scores(pd.DataFrame([{"variant": "main", "case": "t", "region": "polyp", "dice": 1}]))
    archive = tmp_path / "weights.zip"
    assert ": test/images-fold2, " in packing.pack(run, archive)
    files = content(archive)
    manifest = json.loads(files["package.json"])
    assert manifest["input"]["channels"] == ["red", "green", "blue"]
    assert manifest["input"]["fitted"] == fitted
    assert manifest["output"]["labels"] == {"255": "polyp"}
    card = files["card.md"].decode()
    assert "with mean 0.25, 0.5, 0.75; std 1, 2, 4 of the training cases" in card
    assert "| polyp | dice | 1.0000 | – | 1 |" in card
    assert "On the test cases" in card
    assert "synthetic" not in card
    [pixels] = known_runs.write_images(tmp_path / "cases", 1)
    expected, found = load(run.path)(pixels), load(archive)(pixels)
    np.testing.assert_array_equal(found.probabilities["polyp"], expected.probabilities["polyp"])
    manifest["input"]["channels_seen"] = ["gray"]
    rewrite(archive, files, input=manifest["input"])
    refused(archive, "found a network with 3 input and 1 output channels, expected 1 and 1", home)


def test_the_card_says_what_is_known(archive):
    card = content(archive)["card.md"].decode()
    for words in (
        f"# {NAME}\n",
        "with 37 parameters in all",
        "no medical device",
        "Trained on **synthetic** cases",
        "Outside the center window of 8 x 6 x 4 voxels nothing is found",
        "The scored cases also chose the epoch that is kept: their scores are too good",
        "Only 2 cases were scored",
        "flair, t1, t1ce, t2",
        "* Label 4: enhancing.",
        "3 training, 2 validation cases",
        "| WT | dice | 0.5000 | 0.2500 to 0.7500 | 2 |",
        "## License\n\nCC0",
        "## From the packer\n\nDrawn by hand.",
    ):
        assert words in card, words


def test_equal_runs_give_equal_bytes_and_unpacked_weights_the_same_archive(
    tmp_path, run, archive, home
):
    again = tmp_path / "again.zip"
    told = packing.pack(run, again, name=NAME, license="CC0", card="Drawn by hand.")
    assert again.read_bytes() == archive.read_bytes()
    assert hashlib.sha256(again.read_bytes()).hexdigest() in told
    installed.install(str(archive))
    packing.pack(RunFolder(home / NAME), again)
    assert again.read_bytes() == archive.read_bytes()
    with pytest.raises(ValueError, match="found unpacked weights, expected no further options"):
        packing.pack(RunFolder(home / NAME), again, license="MIT")


def test_a_phantom_is_called_one_and_a_name_is_a_name(tmp_path, run):
    path = tmp_path / "weights.zip"
    for name, words in (
        ("dcabes2020/brats2017", "expected a name with the word phantom"),
        ("phantom", "expected a name such as"),
        ("../phantom", "expected a name such as"),
        ("a/b/phantom", "expected a name such as"),
        ("A/phantom", "expected a name such as"),
    ):
        with pytest.raises(ValueError, match=words):
            packing.pack(run, path, name=name)
    assert not path.exists()
    assert ": test/phantom-brats2021, " in packing.pack(run, path)


def test_what_is_not_finished_is_not_packed(tmp_path, run):
    path = tmp_path / "weights.zip"
    with pytest.raises(ValueError, match=r"variant: found 'other'"):
        packing.pack(run, path, variant="other")
    (run.path / "scores.csv").unlink()
    with pytest.raises(DataError, match=r"scores\.csv: found no file"):
        packing.pack(run, path)
    (run.path / "training/main-WT/model.keras").unlink()
    with pytest.raises(DataError, match=r"model\.keras: found no file"):
        packing.pack(run, path)
    facts = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**facts, "parts": ["fold0", "fold1"]}))
    with pytest.raises(DataError, match=r"a run of 2 trainings .*such as .*fold0"):
        packing.pack(RunFolder(run.path), path)
    assert not path.exists()


def test_a_changed_byte_is_refused_wherever_it_is(archive, home):
    """In the zip file, and with the checksums of zip made to fit."""
    sound = archive.read_bytes()
    for place in range(100, len(sound), len(sound) // 40):
        damaged = bytearray(sound)
        damaged[place] ^= 1
        archive.write_bytes(damaged)
        with pytest.raises(DataError) as error:
            installed.install(str(archive))
        assert "\n" not in str(error.value)
    archive.write_bytes(sound)
    files = content(archive)
    for name, data in files.items():
        store(archive, {**files, name: data + b" "})
        if name == packages.MANIFEST:
            continue  # a blank at its end is no change of what it says
        refused(archive, rf"{name}: found sha256 .*expected", home)
    changed = files[packages.MANIFEST].replace(b"CC0", b"MIT")
    store(archive, {**files, packages.MANIFEST: changed})
    refused(archive, r"package\.json: found a wrong sha256", home)


def test_what_does_not_fit_is_refused(archive, home):
    files = content(archive)
    rewrite(archive, files, format=2)
    refused(archive, r"format 2 .*expected format 1 .*pip install --upgrade", home)
    rewrite(archive, files, keras_medseg="99.0.0")
    refused(archive, r"keras_medseg 99\.0\.0, expected .*pip install --upgrade", home)
    rewrite(archive, files, name="../../elsewhere")
    refused(archive, r"package\.json: found", home)
    variant = json.loads(files["variants/main.json"])
    variant["recipe"]["model"]["name"] = "unet_of_tomorrow"
    rewrite(archive, {**files, "variants/main.json": json.dumps(variant).encode()})
    refused(archive, "network: found 'unet_of_tomorrow', expected one of", home)
    variant = json.loads(files["variants/main.json"])
    variant["recipe"]["train"]["warmth"] = 3
    rewrite(archive, {**files, "variants/main.json": json.dumps(variant).encode()})
    refused(archive, "warmth", home)


def test_another_number_of_channels_is_refused(tmp_path, archive, home):
    files = content(archive)
    for network, words in (
        (known_runs.next_voxel(channels=3), "3 input and 1 output channels, expected 4 and 1"),
        (known_runs.constant(0.5, 0.5), "4 input and 2 output channels, expected 4 and 1"),
    ):
        network.save(tmp_path / "model.keras")
        data = (tmp_path / "model.keras").read_bytes()
        rewrite(archive, {**files, "training/main-WT/model.keras": data})
        refused(archive, words, home)


def test_a_network_with_code_is_refused(tmp_path, archive, home):
    image = keras.Input((8, 6, 4))
    code = keras.Model(image, keras.layers.Lambda(lambda x: x[..., :1])(image))
    code.save(tmp_path / "model.keras")
    data = (tmp_path / "model.keras").read_bytes()
    rewrite(archive, {**content(archive), "training/main-WT/model.keras": data})
    refused(archive, r"model\.keras: found a file that Keras does not open .*Lambda", home)


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "a/../../evil", "a\\evil", "C:evil", ".hidden", "a//b", "folder/"]
)
def test_no_name_leads_out_of_an_archive(tmp_path, archive, home, name):
    files = content(archive)
    store(archive, {**files, name: b"x"})
    refused(archive, "expected names that stay in the archive", home)
    assert not [*tmp_path.rglob("*evil*")]


def test_sizes_are_bounded(tmp_path, archive, home, monkeypatch):
    files = content(archive)
    store(archive, {**files, "zeros": bytes(10**7)}, zipfile.ZIP_DEFLATED)
    refused(archive, "card.md compressed or encrypted|run.json compressed", home)
    store(archive, {f"file{number}": b"" for number in range(200)})
    refused(archive, "found 200 files, expected 100 at most", home)
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("model.weights.h5", bytes(10**6))
    rewrite(archive, {**files, "training/main-WT/model.keras": inner.getvalue()})
    monkeypatch.setattr(packages, "LIMIT_BYTES", 500_000)
    refused(archive, "1000000 bytes when unpacked, expected 500000 at most", home)
    monkeypatch.setattr(packages, "LIMIT_BYTES", 1000)
    refused(archive, "expected at most those of the archive, and 1000", home)


def test_a_file_too_many_or_too_few_or_twice_is_refused(archive, home):
    files = content(archive)
    rest = {name: data for name, data in files.items() if name != "scores.csv"}
    store(archive, rest)
    refused(archive, r"scores\.csv: found no file of this name", home)
    store(archive, {**files, "further_scores.csv": b"x"})
    refused(archive, r"further_scores\.csv: found a file of this name, expected none", home)
    store(archive, {**files, "CARD.md": b"x"})
    refused(archive, "found one name twice", home)
    archive.write_bytes(b"no zip file")
    refused(archive, "found a damaged or foreign file", home)


def test_a_folder_is_installed_if_it_is_weights(tmp_path, run, archive, home):
    packages.unpack(archive, tmp_path / "folder")
    (tmp_path / "folder" / ".DS_Store").write_bytes(b"of a file manager")
    assert "installed" in installed.install(str(tmp_path / "folder"))
    assert not (home / NAME / ".DS_Store").exists()
    with pytest.raises(DataError, match=r"Pack a run first: keras-medseg pack"):
        installed.install(str(run.path))


def test_other_weights_of_a_name_are_kept_unless_they_are_to_be_replaced(
    tmp_path, run, archive, home
):
    installed.install(str(archive))
    other = tmp_path / "other.zip"
    packing.pack(run, other, name=NAME, license="MIT")
    with pytest.raises(DataError, match=r"other or damaged weights of this name.*--replace"):
        installed.install(str(other))
    assert json.loads((home / NAME / "package.json").read_text())["license"] == "CC0"
    assert "installed" in installed.install(str(other), replace=True)
    assert json.loads((home / NAME / "package.json").read_text())["license"] == "MIT"
    (home / NAME / "card.md").write_text("changed")
    with pytest.raises(DataError, match=r"card\.md: found sha256"):
        load(NAME)
    assert "damaged" in installed.listing()
    assert "installed" in installed.install(str(other), replace=True)
    load(NAME)
    assert sorted(path.name for path in home.iterdir()) == ["lock", "test"]


def test_processes_that_install_at_once_do_it_once(archive, home):
    told = []
    (home / ".incoming-killed").mkdir(parents=True)
    threads = [
        threading.Thread(target=lambda: told.append(installed.install(str(archive))))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted("already" in line for line in told) == [False, True, True]
    assert sorted(path.name for path in home.iterdir()) == ["lock", "test"]


@pytest.mark.slow
def test_two_processes_install_the_same_weights_once(archive, home):
    command = [sys.executable, "-m", "keras_medseg.cli", "install", str(archive)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert sorted("already" in line for line in told) == [False, True]
    assert sorted(path.name for path in home.iterdir()) == ["lock", "test"]


@pytest.fixture
def served(tmp_path, archive):
    """The address of the archive on a server of this machine."""
    folder = tmp_path / "served"
    folder.mkdir()
    shutil.copy(archive, folder / "weights.zip")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/weights.zip"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_address_is_fetched_if_its_checksum_is_given(served, archive, home, monkeypatch):
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    for source, options, words in (
        (served, {}, "found an address without a checksum, expected --sha256 HEX"),
        (served, {"sha256": "0" * 64}, f"found sha256 {digest}, expected 0000"),
        (served.replace("weights", "nothing"), {"sha256": digest}, "404"),
    ):
        with pytest.raises(ValueError, match=words) as error:
            installed.install(source, **options)
        assert str(error.value).startswith(source)
        assert "\n" not in str(error.value)
    with monkeypatch.context() as patch:
        patch.setattr(packages, "LIMIT_BYTES", 1000)
        with pytest.raises(DataError, match=r"found more than .* bytes, expected 1000 at most"):
            installed.install(served, sha256=digest)
    assert [path.name for path in home.iterdir()] == ["lock"]
    assert "installed" in installed.install(served, sha256=digest.upper())
    load(NAME)


def test_commands_pack_install_and_list(tmp_path, run, home, capsys):
    (tmp_path / "text.md").write_text("Of the packer.")
    archive = str(tmp_path / "weights.zip")
    words = ["--name", NAME, "--licence", "CC0", "--card", str(tmp_path / "text.md")]
    assert cli.main(["pack", str(run.path), archive, *words]) == 0
    assert capsys.readouterr().out.startswith(f"{archive}: {NAME}, ")
    assert cli.main(["install", archive]) == 0
    assert (home / NAME / "card.md").read_text().endswith("## From the packer\n\nOf the packer.\n")
    capsys.readouterr()
    assert cli.main(["install", "--list"]) == 0
    printed = capsys.readouterr().out
    assert f"{NAME} " in printed
    assert "phantom/brats2021-small" in printed
    assert str(home / NAME) in printed
    assert cli.main(["install"]) == 1
    assert "found no source" in capsys.readouterr().err


def test_a_training_starts_from_an_archive_and_from_weights_by_name(tmp_path, run):
    archive = tmp_path / "weights.zip"
    packing.pack(run, archive, name=NAME)
    installed.install(str(archive))
    for source in (str(archive), NAME):
        network = known_runs.next_voxel(scale=1)
        chosen = recipe.override(known_runs.SLICES, {"train.init": source})
        initial.start(chosen, ("WT",), ("a",), tmp_path)(network)
        assert network.get_weights()[0].max() == 1 / 16
        record = json.loads((tmp_path / "init.json").read_text())
        assert (record["weights"], record["taken"]) == (source, ["Convolution"])


def test_what_a_network_started_from_is_packed_without_its_path(tmp_path):
    chosen = recipe.override(known_runs.SLICES, {"train.init": "somewhere/secret/first:main"})
    facts = {**FACTS, "changes": {"train.init": "'somewhere/secret/first:main'"}}
    run = known_runs.write_run(tmp_path / "run", known_runs.next_voxel(), chosen, facts=facts)
    run.write_scores(pd.DataFrame(columns=["variant", "case", "group", "region", "dice"]))
    record = {"weights": "somewhere/secret/first:main", "weights_sha256": "5" * 64}
    (run.training("main", ("WT",)) / "init.json").write_text(json.dumps(record))
    packing.pack(run, tmp_path / "weights.zip", name=NAME)
    installed.install(str(tmp_path / "weights.zip"))
    folder = installed.locate(NAME)
    assert all(b"secret" not in path.read_bytes() for path in folder.rglob("*") if path.is_file())
    packed = RunFolder(folder)
    assert packed.recipe.train.init == "first:main"
    assert packed.run["changes"] == {"train.init": "'first:main'"}
    assert (
        f"* Started from the weights first:main: WT `{'5' * 12}`."
        in (folder / "card.md").read_text()
    )


def test_shipped_weights_are_small_and_find_the_drawn_tumors(tmp_path):
    from keras_medseg import phantoms
    from keras_medseg.evaluation.metrics import dice

    folder = installed.SHIPPED / "phantom/brats2021-small"
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 500_000
    manifest = packages.read_manifest(folder)
    assert manifest["data"]["phantom"]
    assert "**synthetic**" in (folder / "card.md").read_text()
    # A seed that the training did not have.
    phantoms.write(tmp_path, layout="BraTS2021", cases=1, seed=1, size=(48, 48, 32))
    predictor = load("phantom/brats2021-small")
    found = predictor(tmp_path)
    import nibabel

    truth = np.asarray(nibabel.load(next(tmp_path.rglob("*_seg.nii.gz"))).dataobj)
    assert dice(found.labels > 0, truth > 0) > 0.8

"""The slice viewer: what is put into the page, and how it answers mouse and keyboard."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from keras_medseg.reporting import pages, viewer
from keras_medseg.reporting.viewer import ViewerCase

from .browser import needs_browser, use

LABELS = {1: "edema", 2: "core"}
REGIONS = {"whole": (1, 2), "core": (2,)}


def volume_case(id="c1", **options):
    """A column of edema and core in slices 2 to 5 of 8; A misses 5, B calls the core edema."""
    truth = np.zeros((10, 12, 8), np.uint8)
    truth[3, 4, 2:6], truth[3, 5, 2:6] = 1, 2
    a, b = truth.copy(), truth.copy()
    a[..., 5], b[b == 2] = 0, 1
    a[9, 11, 0] = 1  # surplus, far away
    image = np.random.default_rng(0).integers(0, 900, truth.shape).astype(np.int16)
    given = {"image": image, "truth": truth, "maps": {"A": a, "B": b}, "scores": {"A": "so <so>"}}
    return ViewerCase(id, "worst of A", **given | options)


def decoded(text):
    """Inverse of run_lengths, as the page does it."""
    raw, codes, at = base64.b64decode(text), [], 0
    while at < len(raw):
        code, length, shift = raw[at], 0, 0
        while True:
            at += 1
            length |= (raw[at] & 127) << shift
            shift += 7
            if not raw[at] & 128:
                break
        at += 1
        codes += [code] * length
    return codes


def test_run_lengths_by_hand():
    """300 = 2 x 128 + 44: the bytes 44 + 128 and 2."""
    codes = np.uint8([0] * 300 + [4] + [0] * 2)
    assert base64.b64decode(viewer.run_lengths(codes)) == bytes([0, 44 + 128, 2, 4, 1, 0, 2])
    random = np.random.default_rng(0).integers(0, 3, (4, 5, 6)).astype(np.uint8)
    assert decoded(viewer.run_lengths(random)) == random.ravel().tolist()


def test_a_volume_is_cropped_to_its_objects_and_turned():
    """Slices first, then y as rows; 8 voxels of margin reach every border of this small case."""
    case = volume_case()
    view = viewer.encode([case], labels=LABELS, regions=REGIONS)
    [shown] = view["cases"]
    assert shown["size"] == [8, 12, 10]
    frames = np.reshape(decoded(shown["truth"]), (8, 12, 10))
    np.testing.assert_array_equal(frames, case.truth.transpose(2, 1, 0))
    assert view["maps"] == ["A", "B"]
    big = np.zeros((100, 90, 80), np.uint8)
    big[40:44, 30:33, 20] = 1
    far = {"truth": big, "maps": {"A": big}, "image": None}
    [shown] = viewer.encode([volume_case(**far)], labels=LABELS, regions=REGIONS)["cases"]
    assert shown["size"] == [1 + 16, 3 + 16, 4 + 16]
    assert (shown["first"], shown["step"], shown["image"]) == (12, 1, None)


def test_large_volumes_are_thinned_out_and_say_so():
    """400 rows and 200 slices: every third row and column and every third slice are kept."""
    truth = np.zeros((200, 400, 200), np.uint8)
    truth[0, 0, 0] = truth[-1, -1, -1] = 1
    case = volume_case(truth=truth, maps={"A": truth}, image=None, spacing=(1.0, 2.0, 3.0))
    view = viewer.encode([case], labels=LABELS, regions=REGIONS)
    [shown] = view["cases"]
    assert shown["size"] == [67, 134, 67]
    assert (shown["step"], shown["thinned"], shown["aspect"]) == (3, 3, 2)
    assert "Thinned out: c1." in viewer.limits(view)
    assert "Without an image: c1." in viewer.limits(view)


def test_the_picture_has_the_slices_side_by_side():
    case = volume_case()
    [shown] = viewer.encode([case], labels=LABELS, regions=REGIONS)["cases"]
    sheet = shown["image"]
    assert (sheet["across"], sheet["height"], sheet["width"]) == (3, 16, 16)  # blocks of 8
    content = base64.b64decode(sheet["url"].partition(",")[2])
    pixels = np.asarray(Image.open(io.BytesIO(content)), float)
    assert pixels.shape == (48, 48)
    high = np.percentile(case.image[case.image > 0], 99.5)
    slice_4 = np.clip(case.image[..., 4].T / high, 0, 1) * 255  # the second of the second row
    assert np.corrcoef(pixels[16:28, 16:26].ravel(), slice_4.ravel())[0, 1] > 0.9


def test_an_image_keeps_its_size_and_colors():
    image = np.zeros((30, 40, 1, 3), np.uint8)
    image[..., 0] = 200
    mask = np.zeros((30, 40, 1), np.uint8)
    mask[3, 4] = 1
    case = ViewerCase("i", "", image, mask, {"A": mask})
    [shown] = viewer.encode([case], labels=LABELS, regions=REGIONS)["cases"]
    assert shown["size"] == [1, 30, 40]
    content = base64.b64decode(shown["image"]["url"].partition(",")[2])
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    assert pixels.shape == (32, 40, 3)
    assert abs(int(pixels[5, 5, 0]) - 200) < 10


def test_the_size_of_the_page_is_bounded():
    """The first case is shown whatever its size, then those that fit."""
    one = viewer.encode([volume_case()], labels=LABELS, regions=REGIONS)["bytes"]
    cases = [volume_case(f"c{number}") for number in range(4)]
    view = viewer.encode(cases, labels=LABELS, regions=REGIONS, max_bytes=2 * one + 10)
    assert [case["id"] for case in view["cases"]] == ["c0", "c1"]
    assert view["left_out"] == ["c2", "c3"]
    assert view["bytes"] <= 2 * one + 10
    assert "page would be too large: c2, c3." in viewer.limits(view)
    view = viewer.encode(cases[:1], labels=LABELS, regions=REGIONS, max_bytes=1)
    assert len(view["cases"]) == 1


PAGE = """<style>{% include "viewer.css" %}</style><body>{% include "viewer.html" %}
<table class="sortable"><thead><tr><th>name</th><th>value</th></tr></thead><tbody>
<tr><td>b</td><td>10</td></tr><tr><td>a10</td><td>9.5</td></tr>
<tr><td>a9</td><td data-value="100">many</td></tr>
<tr><td>c</td><td></td></tr><tr><td>d</td><td>−3</td></tr></tbody></table>
<script>{% include "sortable.js" %}</script><script>{% include "viewer.js" %}</script></body>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    bright = np.full((10, 12, 8), 500, np.int16)
    flat = np.ones((4, 5, 1), np.uint8)
    image = {"image": None, "truth": flat, "maps": {"A": flat, "B": flat}}
    cases = [volume_case("c1", image=bright), volume_case("c 2&<", **image)]
    view = viewer.encode(cases, labels=LABELS, regions=REGIONS)
    path = folder / "page.html"
    path.write_text(pages.environment(escape=True).from_string(PAGE).render(viewer=view))
    return path


@needs_browser
def test_keyboard_and_mouse_in_a_browser(page, tmp_path):
    """Slices: 8, of which 5 is the worst of A (2 voxels missed; in slice 0 one is surplus)."""
    script = """
    const viewer = document.getElementById("viewer"), canvas = viewer.querySelector("canvas");
    const text = (name) => viewer.querySelector(name).textContent;
    await pause();
    said.first = text("output");
    press("ArrowUp"); said.up = shown();
    for (let i = 0; i < 9; i++) press("ArrowUp"); said.top = shown().slice;
    press("PageDown"); said.down = shown().slice;
    canvas.dispatchEvent(new WheelEvent("wheel", { deltaY: 100, cancelable: true }));
    said.wheel = shown().slice;
    const mouse = (type, clientY) =>
      new PointerEvent(type, { clientY, pointerType: "mouse", bubbles: true });
    canvas.dispatchEvent(mouse("pointerdown", 100));
    dispatchEvent(mouse("pointermove", 82)); said.drag = shown().slice;
    dispatchEvent(mouse("pointerup", 82));
    dispatchEvent(mouse("pointermove", 0)); said.released = shown().slice;
    const slider = viewer.querySelector("input");
    slider.value = 7; slider.dispatchEvent(new Event("input")); said.slider = shown().slice;
    press("2"); said.map = shown().map;
    press("t"); said.truth = shown().mode;
    said.truthLegend = text(".legend");
    press("i"); said.image = [shown().mode, text(".legend")];
    press("o"); press("r"); said.region = [shown().region, text(".legend")];
    press("w"); said.worst = shown();
    const hidden = () => [...viewer.querySelectorAll(".bar, [data-worst]")]
      .map((part) => getComputedStyle(part).display === "none");
    said.slices = hidden();
    press("ArrowRight"); said.next = shown().case; said.noSlices = hidden();
    press("ArrowRight"); said.around = shown().case;
    const select = viewer.querySelector("[name=map]");
    select.selectedIndex = 0; select.dispatchEvent(new Event("change")); said.select = shown().map;
    viewer.querySelector("[data-mode=prediction]").click(); said.click = shown().mode;
    said.pressed = viewer.querySelector("[aria-pressed=true]").textContent;
    said.scores = text(".scores");
    said.names = [...viewer.querySelectorAll("[name=case] option")].map((one) => one.textContent);
    """
    said = use(page, script, tmp_path)
    assert said["first"] == "z = 5 (6 of 8)"
    up = {"case": "c1", "map": "A", "region": "all labels", "mode": "overlay", "slice": "6"}
    assert said["up"] == up
    # 7 is the last, page down 2, wheel down 1, 18 pixels up are three slices
    numbers = [said[name] for name in ("top", "down", "wheel", "drag", "released", "slider")]
    assert numbers == ["7", "2", "1", "4", "4", "7"]
    assert said["map"] == "B"
    assert (said["truth"], said["truthLegend"]) == ("truth", "edemacore")
    assert said["image"] == ["image", ""]
    assert said["region"] == ["whole", "agreemissedsurplus"]
    # B is right on the whole; of equally good slices the first with the largest object counts.
    assert (said["worst"]["slice"], said["worst"]["map"]) == ("2", "B")
    assert (said["slices"], said["noSlices"]) == ([False] * 2, [True] * 2)
    assert (said["next"], said["around"]) == ("c 2&<", "c1")
    assert (said["select"], said["click"], said["pressed"]) == ("A", "prediction", "Prediction")
    assert said["scores"] == "Aso <so>B"
    assert said["names"] == ["c1: worst of A", "c 2&<: worst of A"]


@needs_browser
def test_colors_on_the_canvas_and_the_address(page, tmp_path):
    """Voxel (x, y) of a slice lies at column x and row y; the canvas has 58 pixels per voxel."""
    script = """
    await pause();
    const canvas = document.querySelector("#viewer canvas"), size = canvas.width / 10;
    const color = (x, y) => [...canvas.getContext("2d")
      .getImageData((x + 0.5) * size, (y + 0.5) * size, 1, 1).data].slice(0, 3);
    said.start = shown();
    said.size = [canvas.width, canvas.height];
    said.missed = color(3, 4);
    said.plain = color(0, 0);
    location.hash = "case=c1&map=B&mode=overlay&slice=3&region=all+labels"; await pause();
    said.agree = color(3, 4); said.other = color(3, 5);
    location.hash = "case=c1&map=A&mode=overlay&slice=0"; await pause();
    said.surplus = color(9, 11);
    location.hash = "#elsewhere"; await pause();
    said.kept = color(9, 11);
    location.hash = "case=c1&map=B&mode=prediction&slice=3&region=core"; await pause();
    said.none = color(3, 5);
    location.hash = "case=c1&map=B&mode=truth&slice=3&region=core"; await pause();
    said.core = color(3, 5);
    """
    address = "#case=c1&map=A&mode=overlay&slice=5"
    said = use(page, script, tmp_path, address)
    assert said["start"]["slice"] == "5"
    assert said["size"] == [580, 696]
    gray = np.array(said["plain"])
    assert np.ptp(gray) <= 6
    share = 150 / 255

    def painted(color):
        return pytest.approx(share * np.array(color) + (1 - share) * gray, abs=4)

    assert said["missed"] == painted((0x56, 0xB4, 0xE9))
    assert said["agree"] == painted((0x00, 0x9E, 0x73))
    assert said["other"] == painted((0xCC, 0x79, 0xA7))
    assert said["surplus"] == said["kept"] == painted((0xD5, 0x5E, 0x00))
    assert said["none"] == pytest.approx(gray, abs=4)
    assert said["core"] == painted((0xE6, 0x9F, 0x00))


@needs_browser
def test_tables_sort_numbers_as_numbers(page, tmp_path):
    script = """
    const table = document.querySelector("table.sortable");
    const headings = [...table.tHead.rows[0].cells], rows = table.tBodies[0].rows;
    const names = () => [...rows].map((row) => row.cells[0].textContent).join(" ");
    const click = (column) => headings[column].querySelector("button").click();
    said.before = names();
    click(1); said.rising = names(); said.sort = headings[1].getAttribute("aria-sort");
    click(1); said.falling = names();
    click(0); said.names = names();
    said.marks = headings.map((cell) => cell.getAttribute("aria-sort"));
    """
    said = use(page, script, tmp_path)
    assert said["before"] == "b a10 a9 c d"
    assert (said["rising"], said["sort"]) == ("d a10 b a9 c", "ascending")
    assert said["falling"] == "a9 b a10 d c"  # the empty cell stays last
    assert said["names"] == "a9 a10 b c d"
    assert said["marks"] == ["ascending", None]

"""The documentation site: pages of a small repository by hand, and the build of the real one."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from skimage.io import imread

from website import check, ledgers, links, screenshots
from website.api import api_pages
from website.navigation import navigation
from website.pages import README_SECTIONS, Site, section

from .reporting.browser import needs_browser, use

ROOT = Path(__file__).parents[1]

LEDGER = """
[[entry]]
id = "input-size"
where = "III.A"
says = '"a < b" in `pixels`'
ours = "the center"
status = "exact"
reason = "As it says."
fields = { "data.window" = [176, 176] }
tests = ["tests/test_a.py::test_center"]

[[entry]]
id = "rate"
where = "silent"
says = "nothing"
ours = "0.1"
status = "chosen"
reason = "Usual."
tests = ["tests/test_a.py::test_rate"]
"""

FILES = {
    "README.md": "# x\n\n<!-- papers: make tables -->\n| [p](experiments/p/README.md) |\n"
    "<!-- papers end -->\n" + "".join(f"\n## {name}\n\nof {name}\n" for name in README_SECTIONS),
    "CONTRIBUTING.md": "# Contributing\n",
    "CHANGELOG.md": "# Changelog\n",
    "benchmarks/README.md": "# Benchmarks\n",
    "docs/index.md": "# Home\n\n[limits](../README.md#limits), [papers](../experiments)\n",
    "docs/start.md": "# Start\n",
    "docs/newcomer.md": "# Newcomer\n",
    "experiments/p/README.md": "# p\n\n[`rate`](ledger.toml) [all](ledger.toml) [r](recipe.py)\n"
    "[tables](results) ![curve](curve.png) [data](../../README.md#data) [here](#what)\n"
    "[notes](notes)\n\n## What\n",
    "experiments/p/notes/README.md": "# Notes\n\n[up](../README.md)\n",
    "experiments/p/ledger.toml": LEDGER,
    "experiments/p/recipe.py": "RECIPE = 1\n",
    "experiments/p/results/table.csv": "a,b\n",
    "experiments/p/mutations.py": '@_mutation\ndef input_size(patch):\n    """The corner."""\n\n\n'
    'def helper():\n    """Not one."""\n',
    "tests/test_a.py": "class TestA:\n    @pytest.mark.slow\n    def test_center(self):\n"
    "        assert center()\n\n\ndef test_rate():\n    assert rate() == 0.1\n",
    "keras_medseg/__init__.py": '"""All."""\n',
    "keras_medseg/registry.py": '"""Names."""\n\n\ndef build():\n    """B."""\n',
    "keras_medseg/_own.py": '"""Own."""\n\n\ndef f():\n    """F."""\n',
    "keras_medseg/cli/__init__.py": '"""Commands."""\n',
    "keras_medseg/cli/data.py": '"""Of data."""\n\n\ndef check():\n    """C."""\n',
    "keras_medseg/models/__init__.py": '"""Networks."""\n',
    "keras_medseg/models/unet.py": '"""U-Net."""\n\n\ndef unet():\n    """U."""\n',
    "keras_medseg/models/_parts.py": '"""Parts."""\n\n\ndef part():\n    """P."""\n',
    "keras_medseg/models/sizes.py": '"""Numbers alone."""\n\n\ndef _f():\n    """F."""\n',
}


@pytest.fixture
def repository(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "experiments/p/curve.png").write_bytes(b"\x89PNG")
    return tmp_path


def shown(site, address):
    return site.with_links_of_site(site.pages[address].text, address)


def test_links_of_the_repository_become_links_of_the_site(repository):
    site = Site(repository)
    assert "[limits](limits.md), [papers](papers/index.md)" in shown(site, "index.md")
    page = shown(site, "papers/p/index.md")
    assert "[`rate`](ledger.md#rate) [all](ledger.md)" in page
    assert "[r](../../source/experiments/p/recipe.py.md)" in page
    assert "[tables](../../source/experiments/p/results.md)" in page
    assert "![curve](../../source/experiments/p/curve.png)" in page
    assert "[data](../../data.md) [here](index.md#what)" in page
    assert "[notes](../../source/experiments/p/notes/README.md)" in page
    notes = shown(site, "source/experiments/p/notes/README.md")
    assert "[up](../../../../papers/p/index.md)" in notes
    assert "[p](p/index.md)" in shown(site, "papers/index.md")


def test_what_is_linked_is_on_the_site_and_nothing_else(repository):
    site = Site(repository)
    assert "RECIPE = 1" in site.pages["source/experiments/p/recipe.py.md"].text
    listing = shown(site, "source/experiments/p/results.md")
    assert "[table.csv](results/table.csv.md)" in listing
    assert "a,b" in site.pages["source/experiments/p/results/table.csv.md"].text
    assert site.files == {"source/experiments/p/curve.png": repository / "experiments/p/curve.png"}
    assert not [page for page in site.pages if "mutations" in page or "test_a" in page]


@pytest.mark.parametrize("link", ["nowhere.md", "../../outside.md", "images/"])
def test_a_link_to_nothing_is_an_error_that_names_both(repository, link):
    (repository / "docs/start.md").write_text(f"# Start\n\n[x]({link})\n")
    with pytest.raises(LookupError, match=r"docs/start\.md: found a link to .*, expected a file"):
        Site(repository)


def test_links_in_code_and_to_elsewhere_stay():
    text = (
        "[a](b.md) `[c](d.md)` ``[`e`](f.md)`` [g](https://h.org/i.md) [j](mailto:k@l.org)\n\n"
        "```markdown\n[m](n.md)\n```\n\n* list\n\n  ~~~\n  [o](p.md)\n  ~~~\n\n"
        '[`q`](../r.md#s "title") ![t](u.png)\n'
    )
    found = links.relative_links(text, "docs/page.md")
    assert found == [("a", "docs/b.md", ""), ("`q`", "r.md", "s"), ("t", "docs/u.png", "")]
    changed = links.replace_links(text, "docs/page.md", lambda link: "NEW")
    expected = text.replace("(b.md)", "(NEW)").replace("(../r.md#s ", "(NEW ")
    assert changed == expected.replace("(u.png)", "(NEW)")


def test_sections_of_the_readme_are_pages():
    text = "# All\n\n## Data\n\nd\n\n### Own\n\no\n\n## Limits\n\nl\n"
    assert section(text, "Data") == "# Data\n\nd\n\n## Own\n\no\n\n"
    assert section(text, "Limits") == "# Limits\n\nl\n"
    with pytest.raises(LookupError, match="no section '## Networks'"):
        section(text, "Networks")


def test_navigation_has_every_page_once(repository):
    site = Site(repository)

    def flat(node):
        if isinstance(node, str):
            return [node]
        inner = node.values() if isinstance(node, dict) else node
        return [page for part in inner for page in flat(part)]

    pages = flat(navigation(site.pages))
    listed = [page for page in site.pages if not page.startswith("source/")]
    assert sorted(pages) == sorted(listed)


def test_navigation_takes_the_pages_that_there_are():
    def sections(*pages):
        return {k: v for part in navigation({"index.md", *pages}) for k, v in part.items()}

    assert sections("scoring.md")["Guides"] == ["scoring.md"]
    both = sections("zebra.md", "scoring.md", "protocol.md")
    assert both["Guides"] == ["protocol.md", "scoring.md", "zebra.md"]
    assert "Guides" not in sections("faq.md")
    assert sections("datasets/README.md", "datasets/b.md", "datasets/a.md")["Data"] == [
        {"All data sets": "datasets/README.md"},
        "datasets/a.md",
        "datasets/b.md",
    ]


def test_a_ledger_as_a_table(repository):
    page = ledgers.ledger_page(repository / "experiments/p")
    first, second = re.findall(r"<tr id=.*?</tr>", page)
    assert first.startswith('<tr id="input-size" data-status="exact">')
    assert '"a &lt; b" in <code>pixels</code>' in first
    assert "<code>data.window = [176, 176]</code>" in first
    assert '<a href="tests.html#test_a-test_center">center</a>' in first
    assert "Broken on purpose: The corner." in first
    assert 'data-status="chosen"' in second
    assert "Broken on purpose" not in second
    assert "**exact** (1)" in page
    assert "**departs** (0)" in page


def test_tests_of_a_ledger_are_shown_with_their_decorators(repository):
    page = ledgers.tests_page(repository / "experiments/p", repository)
    code = "@pytest.mark.slow\ndef test_center(self):\n    assert center()"
    assert f"### test_center {{ #test_a-test_center }}\n\n````python\n{code}\n````" in page
    assert page.count("## tests/test_a.py {") == 1
    (repository / "tests/test_a.py").write_text("")
    with pytest.raises(LookupError, match="found no test_center"):
        ledgers.tests_page(repository / "experiments/p", repository)


@pytest.mark.parametrize("folder", sorted((ROOT / "experiments").glob("*/ledger.toml")), ids=str)
def test_every_entry_of_the_papers_is_a_row_whose_tests_are_shown(folder):
    entries = tomllib.loads(folder.read_text())["entry"]
    page = ledgers.ledger_page(folder.parent)
    rows = re.findall(r'<tr id="(.*?)" data-status="(.*?)"', page)
    assert rows == [(entry["id"], entry["status"]) for entry in entries]
    assert set(re.findall(r'data-status="(.*?)"', page)) <= set(ledgers.STATUSES)
    anchors = re.findall(r"\{ #(.*?) \}", ledgers.tests_page(folder.parent, ROOT))
    assert set(re.findall(r'href="tests\.html#(.*?)"', page)) <= set(anchors)
    assert len(anchors) == len(set(anchors))
    claims = [entry for entry in entries if entry["status"] in ("exact", "equivalent")]
    assert page.count("Broken on purpose:") >= len(claims)


def test_api_has_public_modules_alone(repository):
    pages = api_pages(repository / "keras_medseg")
    assert set(pages) == {"api/index.md", "api/registry.md", "api/models.md"}
    assert re.findall(r"^::: (.*)", pages["api/models.md"], re.MULTILINE) == [
        "keras_medseg.models.unet"
    ]
    assert "| [models](models.md) | Networks. |" in pages["api/index.md"]


HTML = {
    "index.html": '<a href="a.html#here">a</a><a href="https://x.org/y">y</a><img src="i.png">',
    "a.html": '<p id="here"></p><a href="#here">h</a><a href="sub/">s</a><a href="i.png#x">i</a>',
    "sub/index.html": '<a href="../a.html">a</a><script src="../s.js"></script>',
    "404.html": '<a href="/sub/">s</a><link rel="canonical" href="https://x.org/404">',
    "s.js": "",
    "i.png": "",
    "s.css": "@import 'more.css'; p { background: url(data:image/png;base64,AA) }",
}


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("s.js", "", None),
        ("b.html", '<a href="gone.html">', "b.html: found a link to gone.html, expected a file"),
        ("b.html", '<a href="a.html#gone">', "another element with the id gone"),
        ("b.html", '<a href="#gone">', "another element with the id gone"),
        ("b.html", '<img src="gone.png">', "b.html: found a link to gone.png"),
        ("b.html", '<script src="https://cdn.org/s.js"></script>', "b.html: fetches https://cdn"),
        ("b.html", '<link rel="stylesheet" href="//cdn.org/s.css">', "b.html: fetches //cdn.org"),
        ("b.css", '@import "https://cdn.org/s.css";', "b.css: fetches https://cdn.org/s.css"),
        ("b.css", "p { background: url(//cdn.org/i.png) }", "b.css: fetches //cdn.org/i.png"),
    ],
)
def test_what_the_check_of_the_built_site_finds(tmp_path, name, text, found):
    (tmp_path / "sub").mkdir()
    for page, content in (HTML | {name: text}).items():
        (tmp_path / page).write_text(content)
    problems = check.problems(tmp_path)
    assert len(problems) == (found is not None)
    assert found is None or found in problems[0]


USE_THE_FILTERS = """
  const rows = [...document.querySelectorAll("tbody tr")];
  const visible = () => [
    rows.filter((row) => !row.hidden).map((row) => row.id),
    document.querySelector(".ledger-filter output").value,
  ];
  const words = document.querySelector(".ledger-filter input[type=search]");
  const type = (text) => {
    words.value = text;
    words.dispatchEvent(new Event("input", { bubbles: true }));
  };
  said.all = visible();
  type("PIXELS  exact");
  said.words = visible();
  type("usual exact");
  said.none = visible();
  type("");
  document.querySelector(".ledger-filter input[value=chosen]").click();
  said.status = visible();
  location.hash = "#rate";
  await pause();
  said.link = visible();
"""


@pytest.mark.slow
@needs_browser
def test_the_filters_of_a_ledger_in_a_browser(repository, tmp_path):
    page = ledgers.ledger_page(repository / "experiments/p")
    script = (ROOT / "website/assets/ledger.js").read_text()
    path = tmp_path / "page.html"
    path.write_text(f"{page[page.index('<table') :]}<script>{script}</script>")
    assert use(path, USE_THE_FILTERS, tmp_path) == {
        "all": [["input-size", "rate"], "2 of 2"],
        "words": [["input-size"], "1 of 2"],  # every word, in any case
        "none": [[], "0 of 2"],
        "status": [["input-size"], "1 of 2"],
        "link": [["input-size", "rate"], "2 of 2"],  # a link to a hidden entry shows it
    }


@pytest.mark.slow
@needs_browser
def test_pictures_of_a_run(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/case_median.png").write_bytes(b"a picture")
    with pytest.raises(FileNotFoundError, match=r"report\.html: found no such file"):
        screenshots.take(tmp_path, tmp_path)
    (tmp_path / "report.html").write_text('<body style="margin: 0; background: #00ff00">')
    screenshots.take(tmp_path, tmp_path)
    shot = imread(tmp_path / "report.png")
    assert shot.shape[:2] == (1500, 1240)
    assert (shot[..., :3] == (0, 255, 0)).all()
    assert (tmp_path / "case_median.png").read_bytes() == b"a picture"


def docs_commands(site):
    """The lines of the Makefile's target docs, which writes into another folder."""
    makefile = (ROOT / "Makefile").read_text()
    lines = re.search(r"^docs:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)[1].splitlines()
    build, *others = [line.strip().replace("$(BIN)/python", sys.executable) for line in lines]
    return [
        f"{build} --site-dir {site}",
        *(line.replace("build/site", str(site)) for line in others),
    ]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_a_network(tmp_path):
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    # No proxy and no name service: what fetches anything fails.
    offline = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    commands = docs_commands(tmp_path)
    assert "--strict" in commands[0]
    assert "--quiet" not in commands[0]  # mkdocs would count no warnings
    for line in commands:
        done = subprocess.run(
            line,
            shell=True,
            cwd=ROOT,
            env=os.environ | offline,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    built = {path.relative_to(tmp_path).with_suffix("") for path in tmp_path.rglob("*.html")}
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix("")
        assert {name, name.with_name("index")} & built, page
    losses = (tmp_path / "api/losses.html").read_text()
    assert 'id="keras_medseg.losses.dice_loss"' in losses
    assert not re.findall(r'id="[\w.]*\._\w+"', losses)
    hidden = r'data-md-type="toc"\s+hidden'
    assert not re.search(hidden, losses)
    assert re.search(hidden, (tmp_path / "networks.html").read_text())

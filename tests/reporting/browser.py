"""Runs a page in headless Chromium, with a script that uses it as a person would."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

_AFTER = """
<script>
addEventListener("load", async () => {
  const said = {};
  const press = (key) => document.getElementById("viewer").dispatchEvent(
    new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  const shown = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const pause = () => new Promise((resolve) => setTimeout(resolve, 50));
  try { %s } catch (error) { said.error = String(error); }
  const out = document.createElement("pre");
  out.id = "said";
  out.textContent = JSON.stringify(said);
  document.body.append(out);
});
</script>
"""


def use(
    page: Path,
    script: str,
    folder: Path,
    address: str = "",
    size: tuple[int, int] = (1280, 900),
) -> dict[str, Any]:
    """What a script puts into `said` after a page was loaded; a copy of the page is used.

    The script may call press(key) on the viewer, shown() for the address, and await pause().
    """
    copy = folder / "used.html"
    copy.write_text(page.read_text() + _AFTER % script)
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000"]
    words += ["--window-size={},{}".format(*size)]
    words += [f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    done = subprocess.run(
        [str(CHROMIUM), *words, f"{copy.as_uri()}{address}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r'<pre id="said">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stdout[-2000:]
    said = json.loads(unescape(found[1]))
    assert "error" not in said, said
    return said

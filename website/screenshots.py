"""The pictures of docs/images, from a run of `make reproduce-dcabes2020`.

python -m website.screenshots runs/dcabes2020-quick-phantom
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

IMAGES = Path(__file__).parents[1] / "docs/images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
REPORT_SIZE = (1240, 1500)  # pixels: both tables of the paper


def take(run: Path, images: Path) -> None:
    """Write the top of a run's report and its median case.

    Args:
        run: a finished run folder.
        images: folder for report.png and case_median.png.

    Raises:
        FileNotFoundError: no Chromium, or a file of the run is missing.
        RuntimeError: the browser took no picture.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise FileNotFoundError(f"found no browser, expected one of {', '.join(BROWSERS)}.")
    report, case = run / "report.html", run / "figures/case_median.png"
    for path in (report, case):
        if not path.is_file():
            expected = "expected that of a finished run with three scored cases or more."
            raise FileNotFoundError(f"{path}: found no such file, {expected}")
    with tempfile.TemporaryDirectory() as profile:
        words = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        words += [f"--user-data-dir={profile}", "--window-size={},{}".format(*REPORT_SIZE)]
        target = f"--screenshot={images / 'report.png'}"
        command = [browser, *words, target, report.resolve().as_uri()]
        # Chromium complains of every service of a desktop that is not there.
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not (images / "report.png").exists():
        raise RuntimeError(f"{browser}: exit code {done.returncode}. {done.stderr[-500:]}")
    shutil.copy(case, images / "case_median.png")


if __name__ == "__main__":
    take(Path(sys.argv[1]), IMAGES)

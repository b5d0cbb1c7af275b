"""Every table of this folder's README, one after the other: the commands that the page names.

    python benchmarks/all.py [--torch-python PATH] [--monai-python PATH] [--truth FILE]

It takes two hours or so on two cores, which should be idle but for the commands with --one-thread.
PyTorch (with Keras) and MONAI are not installed with the package: without an interpreter that has
them, what is compared with them is left out, by name. --truth is a segmentation of BraTS 2021, for
the real case of scoring.py. Exit code 1 if a command failed or missed its goal; the others ran.
"""

import argparse
import subprocess
import sys
from pathlib import Path

COMPILED = ("integrated_attention_cnn", "mtds_r2unet", "residual_attention_unet", "unet")


def commands(torch: str, monai: str, truth: str) -> list[list[str]]:
    """Command lines without the interpreter, less those that lack what they compare with."""
    with_torch = ["--torch-python", torch]
    with_monai = ["--monai-python", monai]
    real = ["--truth", truth] if truth else []
    found = [
        ["networks.py", "--rounds", "9", *(with_torch if torch else [])],
        ["networks.py", "--rounds", "9", "--compile", "--only", *COMPILED, *with_torch],
        ["convolution.py", *with_torch],
        ["norms.py", "--rounds", "5", "--one-thread"],
        ["norms.py", "--kernel"],
        ["predict_case.py"],
        ["predict_case.py", "--precision", "mixed_bfloat16"],
        ["input_pipeline.py"],
        ["augmented_patches.py", "--rounds", "5", *with_monai],
        ["augmented_patches.py", "--rounds", "5", "--batches", "3", "--one-thread", *with_monai],
        ["scoring.py", "--rounds", "5", "--one-thread", *real, *with_monai],
    ]
    return [command for command in found if "" not in command]


def main() -> int:
    """Exit code: 1 if a command failed or missed its goal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", default="", help="an interpreter with torch and keras")
    parser.add_argument("--monai-python", default="", help="an interpreter with MONAI")
    parser.add_argument("--truth", default="", help="a segmentation of BraTS 2021")
    arguments = parser.parse_args()
    given = (arguments.torch_python, arguments.monai_python, arguments.truth)
    chosen = commands(*given)
    failed = []
    for command in chosen:
        print(f"\n{' '.join(['python', f'benchmarks/{command[0]}', *command[1:]])}\n", flush=True)
        path = Path(__file__).with_name(command[0])
        if subprocess.run([sys.executable, str(path), *command[1:]], check=False).returncode:
            failed.append(" ".join(command))
    for name, option in (("PyTorch", given[0]), ("MONAI", given[1])):
        if not option:
            print(f"Left out: what is compared with {name}.", file=sys.stderr)
    for line in failed:
        print(f"Failed, or missed its goal: {line}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())

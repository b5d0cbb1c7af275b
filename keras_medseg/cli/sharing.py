"""Commands that give networks to others and take theirs: export, pack, install."""

import argparse
from pathlib import Path


def export(arguments: argparse.Namespace) -> None:
    """Export a run or weights as one graph of scans, or one network (model.keras) alone."""
    source = Path(arguments.source)
    if source.suffix == ".keras":
        from keras_medseg.inference import export

        if arguments.cases:
            raise ValueError(
                "--cases: found one beside a network alone, expected a run or weights."
            )
        print(export.export(source, arguments.out, arguments.format))
        return
    from keras_medseg.runs.scan_export import export_scans

    exported = export_scans(arguments.source, arguments.out, arguments.format, arguments.cases)
    print("\n".join(exported))


def add_export_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `export`."""
    sub.add_argument(
        "source",
        metavar="RUN",
        help="run folder, RUN:VARIANT, archive or name of weights; or model.keras of one network",
    )
    sub.add_argument("out", type=Path, help="a new folder; of one network the folder or .onnx file")
    sub.add_argument("--format", choices=("savedmodel", "onnx"), default="savedmodel")
    sub.add_argument("--cases", type=Path, metavar="DIR", help="compare on these cases, too")


def pack(arguments: argparse.Namespace) -> None:
    """Write the networks of a run into one archive, with recipe, scores, card and checksums."""
    from keras_medseg.files import read_file
    from keras_medseg.runs import packing
    from keras_medseg.runs.run_folder import RunFolder

    card = read_file(arguments.card, str, "Name a text file.") if arguments.card else ""
    print(
        packing.pack(
            RunFolder(arguments.run),
            arguments.file,
            variant=arguments.variant,
            name=arguments.name,
            license=arguments.license,
            card=card,
        )
    )


def add_pack_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `pack`."""
    sub.add_argument("run", type=Path, help="folder of a finished run")
    sub.add_argument("file", type=Path, help="the archive, such as weights.zip")
    sub.add_argument("--variant", help="which of the run's variants (default: the first)")
    sub.add_argument("--name", metavar="PAPER/DATA", help="by which the weights are loaded")
    sub.add_argument(
        "--license", "--licence", default="", metavar="TEXT", help="of the weights: CC-BY-4.0, ..."
    )
    sub.add_argument("--card", type=Path, metavar="FILE", help="Markdown to add to the card")


def install(arguments: argparse.Namespace) -> None:
    """Install an archive of weights under its name, after all checks, or list what is there."""
    from keras_medseg.runs import installed

    if arguments.list:
        print(installed.listing())
    elif not arguments.source:
        raise ValueError("install: found no source, expected an archive, a folder, or --list.")
    else:
        print(
            installed.install(arguments.source, sha256=arguments.sha256, replace=arguments.replace)
        )


def add_install_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `install`."""
    sub.add_argument("source", nargs="?", metavar="FILE|DIR|URL")
    sub.add_argument("--sha256", default="", metavar="HEX", help="of the archive; needed for URL")
    sub.add_argument("--replace", action="store_true", help="replace other weights of this name")
    sub.add_argument("--list", action="store_true", help="list the weights that are there")

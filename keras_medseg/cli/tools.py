"""Commands that say what is here: models, recipes, doctor, completion."""

import argparse
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from keras_medseg.cli.keras_import import import_frameworks
from keras_medseg.cli.output import Answer


def models(arguments: argparse.Namespace) -> None:
    """List the networks, or describe one."""
    from keras_medseg import registry
    from keras_medseg.reporting import model_table

    if arguments.write:
        model_table.write_table(arguments.write)
    else:
        print(registry.describe(arguments.name) if arguments.name else model_table.table())


def add_models_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `models`."""
    sub.add_argument("name", nargs="?")
    sub.add_argument("--write", type=Path, metavar="PAGE", help="put the list into a Markdown page")


def recipes(arguments: argparse.Namespace) -> None:
    """List the papers whose recipes are here, or print one with what its ledger says."""
    from keras_medseg.runs import papers

    if not arguments.name:
        if arguments.out:
            raise ValueError("--out: found no paper, expected the one whose recipe is written.")
        print(papers.listing())
        return
    import_frameworks()
    if arguments.out:
        from keras_medseg import recipe
        from keras_medseg.files import write_atomic

        chosen = papers.named(arguments.name).recipe
        write_atomic(arguments.out, recipe.to_json(chosen).encode())
        print(arguments.out)
    else:
        print(papers.describe(arguments.name))


def add_recipes_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `recipes`."""
    sub.add_argument("name", nargs="?", metavar="PAPER[:DATASET]")
    sub.add_argument("--out", type=Path, metavar="FILE", help="write it as a recipe.json to edit")


def doctor(arguments: argparse.Namespace) -> Answer:
    """Say what this machine has for a run and what is missing; exit code 1 if something is."""
    with suppress(ImportError):  # which the examination tells in its place
        import_frameworks()
    from keras_medseg.runs import doctor as examination

    facts = examination.examine()
    print(examination.text(facts))
    return Answer(lambda: facts, 1 if facts["missing"] else 0)


def completion(arguments: argparse.Namespace) -> None:
    """Print what completes commands, options, files and names in a shell."""
    import shtab

    from keras_medseg import phantoms, registry
    from keras_medseg.data import datasets

    names = {
        ("models", "name"): registry.list_models(),
        ("phantom", "layout"): phantoms.layouts(),
        ("check", "dataset"): datasets.names(),
        ("prepare", "dataset"): datasets.names(),
        ("score", "dataset"): datasets.names(),
    }
    parser = arguments.parser
    [commands] = [part for part in parser._actions if isinstance(part.choices, Mapping)]
    for command, sub in dict(commands.choices or {}).items():
        for action in sub._actions:
            action.choices = action.choices or names.get((command, action.dest))
            if action.type is Path or (command, action.dest) in _ALSO_FILES:
                action.complete = shtab.FILE
    print(shtab.complete(parser, arguments.shell))


def add_completion_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `completion`."""
    sub.add_argument("shell", choices=("bash", "zsh", "tcsh"))


_ALSO_FILES = {
    ("predict", "run"),
    ("evaluate", "run"),
    ("score", "folders"),
    ("install", "source"),
    ("export", "source"),
    ("train", "recipe"),
    ("train", "init"),
}
"""Arguments that may be a path or something else."""

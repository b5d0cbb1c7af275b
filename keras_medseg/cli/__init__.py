"""The command line: `main`, and the table of commands.

A command is a function of the module that COMMANDS names; behind it, `add_..._arguments` adds its
arguments. Imports that take time stand inside the functions, so that --help is instant.
"""

import argparse
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

from keras_medseg import __version__
from keras_medseg.cli import data, prediction, scoring, sharing, tools, training
from keras_medseg.cli.keras_import import import_frameworks
from keras_medseg.cli.output import Answer, add_output, messages, nobody_reads, one_line, told


class Command(NamedTuple):
    """A command, whose name is that of its function and whose help is the docstring.

    Attributes:
        run: the function.
        add_arguments: adds its arguments to its parser.
        needs_keras: Keras is imported before it runs, and its version is checked.
        resumes: given again after Ctrl-C, it goes on from there.
    """

    run: Callable[[argparse.Namespace], Answer | int | None]
    add_arguments: Callable[[argparse.ArgumentParser], None]
    needs_keras: bool = False
    resumes: bool = False


COMMANDS = (
    Command(tools.models, tools.add_models_arguments, needs_keras=True),
    Command(tools.recipes, tools.add_recipes_arguments),
    Command(training.reproduce, training.add_reproduce_arguments, needs_keras=True, resumes=True),
    Command(data.check, data.add_check_arguments),
    Command(data.prepare, data.add_prepare_arguments, resumes=True),
    Command(data.phantom, data.add_phantom_arguments, resumes=True),
    Command(training.train, training.add_train_arguments, needs_keras=True, resumes=True),
    Command(prediction.predict, prediction.add_predict_arguments, needs_keras=True, resumes=True),
    Command(scoring.evaluate, scoring.add_evaluate_arguments, needs_keras=True, resumes=True),
    Command(scoring.score, scoring.add_score_arguments),
    Command(training.report, training.add_report_arguments, needs_keras=True),
    Command(sharing.export, sharing.add_export_arguments, needs_keras=True),
    Command(sharing.pack, sharing.add_pack_arguments, needs_keras=True),
    Command(sharing.install, sharing.add_install_arguments, needs_keras=True),
    Command(tools.doctor, add_output),
    Command(tools.completion, tools.add_completion_arguments),
)


def main(argv: Sequence[str] | None = None, *, line: str = "") -> int:
    """Run one command. Exit code: 0 on success, 1 on an error that the user can fix, 130 on Ctrl-C.

    Args:
        argv: the arguments; by default those of the process.
        line: the command as the user gave it, for the provenance; by default keras-medseg ARGV.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = make_parser()
    arguments = parser.parse_args(argv)
    arguments.line = line or shlex.join(["keras-medseg", *argv])
    arguments.parser = parser
    command: Command = arguments.command
    usual, warnings.formatwarning = warnings.formatwarning, one_line
    try:
        if command.needs_keras:
            import_frameworks()
        with messages(arguments):
            answer = command.run(arguments)
        return told(arguments, answer)
    except (ValueError, OSError, ImportError) as error:
        if isinstance(error, BrokenPipeError) and nobody_reads():
            return 1
        print(f"keras-medseg: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not interrupt the exit
        ending = "Nothing is half-written."
        if command.resumes:
            ending = "The same command goes on from here."
        print(f"\nStopped. {ending}", file=sys.stderr)
        return 130
    finally:
        warnings.formatwarning = usual


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands; `arguments.command` is one of COMMANDS."""
    parser = argparse.ArgumentParser(
        prog="keras-medseg",
        description="Papers on medical image segmentation, reproduced.",
    )
    parser.add_argument("--version", action="version", version=f"keras-medseg {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        words = command.run.__doc__ or ""
        sub = commands.add_parser(
            command.run.__name__, help=words[0].lower() + words[1:-1], description=words
        )
        sub.set_defaults(command=command)
        command.add_arguments(sub)
    return parser

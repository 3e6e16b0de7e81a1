"""The command line: ``ppl-vae fit | compare | select | evaluate | score | predict | impute | parameters | ...``.

Options are the fields of the declarations themselves: ``--model.prior GaussianMixture --model.prior.components 50`` is
``VAE(prior=GaussianMixture(components=50))``. A module here is a verb: its ``options`` and what it does, ``run``. They import
torch, and what of the library needs it, once they run: help, and a verb or an option that is misspelled, do without.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from ppl_vae.cli import (
    attribute,
    catalogue,
    compare,
    denoise,
    divergence,
    encode,
    evaluate,
    explore,
    export,
    fit,
    impute,
    interpolate,
    outliers,
    parameters,
    predict,
    query,
    report,
    sample,
    score,
    select,
    traverse,
)
from ppl_vae.cli.errors import explain, print_error
from ppl_vae.cli.help import MORE, Brief
from ppl_vae.cli.options import AnyFamily, check_options, check_out, expand, import_named, yaml_texts
from ppl_vae.cli.output import notes
from ppl_vae.cli.together import check_shared, together
from ppl_vae.launched import LostProcessError
from ppl_vae.storage import Interrupted

__all__ = ["main"]

VERBS: dict[str, Any] = {
    "fit": fit,
    "compare": compare,
    "divergence": divergence,
    "select": select,
    "evaluate": evaluate,
    "score": score,
    "outliers": outliers,
    "predict": predict,
    "impute": impute,
    "denoise": denoise,
    "parameters": parameters,
    "sample": sample,
    "interpolate": interpolate,
    "traverse": traverse,
    "attribute": attribute,
    "encode": encode,
    "explore": explore,
    "export": export,
    "query": query,
    "report": report,
    "list": catalogue,
}

WITH_CLASSES = ("fit", "compare", "select")
"""Verbs some of whose options name classes, which are imported for that."""
HELP = ("-h", "--help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb: 0 if it worked, 2 and one line on standard error if the input was bad, 1 if the fit failed."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if "" not in sys.path:
        sys.path.insert(0, "")  # a user's own class is named by its import path from where the user stands
    if not arguments:
        _parser().print_help()
        return 0
    try:
        with together() as telling:
            return _answered(arguments, telling)
    except LostProcessError as error:
        return print_error(str(error), code=1)


def _answered(arguments: list[str], telling: bool) -> int:
    """The exit code of a verb, run, with a line on standard error if it did not work."""
    try:
        check_shared(arguments[0])
        verb, chosen = _chosen(arguments)
        check_out(chosen)
        with notes(quiet=chosen.get("quiet", False) or not telling):
            VERBS[verb].run(**chosen)
        sys.stdout.flush()
    except BrokenPipeError:
        return _end_without_reader()
    except (ArgumentError, ValueError, OSError) as error:
        return print_error(explain(str(error), _options(_parser(arguments[0]), arguments[0])), code=2)
    except FloatingPointError as error:
        return print_error(str(error), code=1)
    except LostProcessError as error:
        return print_error(str(error), code=1, only=True)
    except Interrupted as stop:
        return print_error(str(stop), code=stop.code)
    except KeyboardInterrupt:
        return print_error("interrupted", code=130)
    return 0


def _chosen(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """The verb that the words ask for, and what it is to be run with."""
    texts = yaml_texts(arguments)
    resumed = None
    parser = _parser(arguments[0])
    if arguments[0] in WITH_CLASSES and not set(arguments[1:2]) & set(HELP):
        check_options(arguments, _options(parser, arguments[0]))
        arguments, resumed = expand(arguments)
        parser = _parser(arguments[0], families=import_named(" ".join([*arguments, *texts])))
    options = parser.instantiate(parser.parse_args(arguments))
    # The parser puts an invisible letter before names of its own methods, such as values.
    chosen = {name.lstrip("\u200b"): value for name, value in vars(options[options.verb]).items() if name != "config"}
    return options.verb, chosen | ({} if resumed is None else {"resume": resumed})


def _end_without_reader() -> int:
    """Nobody reads on, as after ``| head``: end as others do that the signal ends, without another word."""
    with contextlib.suppress(OSError, ValueError):  # what is buffered finds no reader at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


def _options(parser: ArgumentParser, verb: str) -> list[str]:
    """The options of a verb, but for the fields of classes that others name."""
    chosen = parser._subcommands_action
    found = chosen.choices.get(verb) if chosen is not None else None
    return [] if found is None else [option for action in found._actions for option in action.option_strings]


def _parser(verb: str = "", *, families: Any = AnyFamily) -> ArgumentParser:
    """The parser of all verbs, with the options of one; ``families`` has those that its options hold members of."""
    told: dict[str, Any] = {"description": "Declared generative latent-variable models.", "formatter_class": Brief}
    parser = ArgumentParser(prog="ppl-vae", **told, exit_on_error=False)
    verbs = parser.add_subcommands(dest="verb")
    for name, module in VERBS.items():
        doc = inspect.getdoc(module.run) or ""
        subparser = ArgumentParser(description=doc, epilog=MORE if name in WITH_CLASSES else None, exit_on_error=False)
        if name == verb:
            module.options(subparser, families) if name in WITH_CLASSES else module.options(subparser)
            subparser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
        verbs.add_subcommand(name, subparser, help=doc.partition("\n")[0])
    return parser

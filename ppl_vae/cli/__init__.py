"""The command line: ``ppl-vae fit | compare | select | evaluate | score | predict | impute | parameters | ...``.

Options are the fields of the declarations themselves: ``--model.prior GaussianMixture --model.prior.components 50`` is
``VAE(prior=GaussianMixture(components=50))``. A module here is a verb: its ``options`` and what it does, ``run``.
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
    catalogue,
    compare,
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
)
from ppl_vae.cli.errors import explain, print_error
from ppl_vae.cli.help import MORE, Brief
from ppl_vae.cli.options import check_files, expand
from ppl_vae.cli.output import notes
from ppl_vae.declaration import enable_families
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
    "parameters": parameters,
    "sample": sample,
    "interpolate": interpolate,
    "encode": encode,
    "explore": explore,
    "export": export,
    "query": query,
    "report": report,
    "list": catalogue,
}

WITH_CLASSES = ("fit", "compare", "select")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb: 0 if it worked, 2 and one line on standard error if the input was bad, 1 if the fit failed."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if "" not in sys.path:
        sys.path.insert(0, "")  # a user's own class is named by its import path from where the user stands
    parser = _parser()
    try:
        if not arguments:
            parser.print_help()
            return 0
        check_files(arguments)
        words, resumed = expand(arguments)
        options = parser.instantiate(parser.parse_args(words))
        # The parser puts an invisible letter before names of its own methods, such as values.
        chosen = {name.lstrip("\u200b"): value for name, value in vars(options[options.verb]).items() if name != "config"}
        if resumed is not None:
            chosen["resume"] = resumed
        with notes(quiet=chosen.get("quiet", False)):
            VERBS[options.verb].run(**chosen)
        sys.stdout.flush()
    except BrokenPipeError:
        return _end_without_reader()
    except (ArgumentError, ValueError, OSError) as error:
        return print_error(explain(str(error), _options(parser, arguments)), code=2)
    except FloatingPointError as error:
        return print_error(str(error), code=1)
    except Interrupted as stop:
        return print_error(str(stop), code=stop.code)
    except KeyboardInterrupt:
        return print_error("interrupted", code=130)
    return 0


def _end_without_reader() -> int:
    """Nobody reads on, as after ``| head``: end as others do that the signal ends, without another word."""
    with contextlib.suppress(OSError, ValueError):  # what is buffered finds no reader at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


def _options(parser: ArgumentParser, arguments: list[str]) -> list[str]:
    """The options of the verb that is asked for."""
    chosen = parser._subcommands_action
    verb = chosen.choices.get(arguments[0]) if chosen is not None and arguments else None
    return [] if verb is None else [option for action in verb._actions for option in action.option_strings]


def _parser() -> ArgumentParser:
    enable_families()
    told: dict[str, Any] = {"description": "Declared generative latent-variable models.", "formatter_class": Brief}
    parser = ArgumentParser(prog="ppl-vae", **told, exit_on_error=False)
    verbs = parser.add_subcommands(dest="verb")
    for name, verb in VERBS.items():
        epilog = MORE if name in WITH_CLASSES else None
        subparser = ArgumentParser(description=inspect.getdoc(verb.run), epilog=epilog, exit_on_error=False)
        verb.options(subparser)
        subparser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
        verbs.add_subcommand(name, subparser, help=(inspect.getdoc(verb.run) or "").partition("\n")[0])
    return parser

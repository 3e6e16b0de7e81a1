"""The command line: ``ppl-vae fit | compare | evaluate | sample | encode | report | list``.

Options are the fields of the declarations themselves: ``--model.prior GaussianMixture --model.prior.components 50`` is
``VAE(prior=GaussianMixture(components=50))``. A module here is a verb: its ``options`` and what it does, ``run``.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from ppl_vae.cli import catalogue, compare, encode, evaluate, fit, report, sample
from ppl_vae.cli.options import check_files, expand
from ppl_vae.cli.output import notes
from ppl_vae.cli.refusals import explain, refuse
from ppl_vae.declaration import enable_families
from ppl_vae.storage import Interrupted

__all__ = ["main"]

VERBS: dict[str, Any] = {
    "fit": fit,
    "compare": compare,
    "evaluate": evaluate,
    "sample": sample,
    "encode": encode,
    "report": report,
    "list": catalogue,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb: 0 if it worked, 2 and one line on standard error if the input was bad, 1 if the fit failed."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if "" not in sys.path:
        sys.path.insert(0, "")  # a user's own class is named by its import path from where the user stands
    try:
        check_files(arguments)
        parser = _parser()
        words, resumed = expand(arguments)
        options = parser.instantiate(parser.parse_args(words))
        chosen = {name: value for name, value in vars(options[options.verb]).items() if name != "config"}
        if resumed is not None:
            chosen["resume"] = resumed
        with notes(quiet=chosen.get("quiet", False)):
            VERBS[options.verb].run(**chosen)
    except (ArgumentError, ValueError, OSError) as error:
        return refuse(explain(str(error)), code=2)
    except FloatingPointError as error:
        return refuse(str(error), code=1)
    except Interrupted as stop:
        return refuse(str(stop), code=stop.code)
    except KeyboardInterrupt:
        return refuse("interrupted", code=130)
    return 0


def _parser() -> ArgumentParser:
    enable_families()
    parser = ArgumentParser(prog="ppl-vae", description="Declared generative latent-variable models.", exit_on_error=False)
    verbs = parser.add_subcommands(dest="verb")
    for name, verb in VERBS.items():
        subparser = ArgumentParser(description=inspect.getdoc(verb.run), exit_on_error=False)
        verb.options(subparser)
        subparser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
        verbs.add_subcommand(name, subparser, help=inspect.getdoc(verb.run))
    return parser

"""The help of a verb: short lines, so that it is read; what a field means in every word stands with its class."""

from __future__ import annotations

import re
import textwrap
from argparse import SUPPRESS, Action
from collections.abc import Iterable
from typing import Any

from jsonargparse import DefaultHelpFormatter

__all__ = ["MORE", "Brief", "first_words"]

WIDTH, POSITION = 100, 30
MORE = """more: ppl-vae list has the classes, ppl-vae list CLASS the fields of one, such as VAE, SVI or DataSource; --model.help
CLASS (likewise --guide.help, --method.help) its options"""
UNSAID = ("", "auto", SUPPRESS)
BOUNDARY = re.compile(r"[;.:](?= )")  # ends a clause; in a number a digit follows


class Brief(DefaultHelpFormatter):
    """A line or two for each option, without types, lists of classes and defaults that say nothing.

    The fields of the data are listed by ``ppl-vae fit`` alone.
    """

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog.replace(" [options]", ""), **{**options, "width": WIDTH, "max_help_position": POSITION})

    def add_usage(self, usage: str | None, actions: Iterable[Action], *args: Any, **kwargs: Any) -> None:
        """The positional arguments and that there are options, which follow below."""
        named = [action for action in actions if not action.option_strings]
        required = [f"--{action.dest} {action.dest.upper()}" for action in actions if action.option_strings and action.required]
        verbs = ["VERB ..."] if any(action.nargs == "A..." for action in named) else []
        kept = [self._format_args(action, str(action.metavar or action.dest)) for action in named if action.nargs != "A..."]
        super().add_usage(" ".join([self._prog, *kept, *required, "[options]", *verbs]), [], *args, **kwargs)

    def add_argument(self, action: Action) -> None:
        """All but the help of single classes, of which the last lines tell, and the fields of data but where they belong."""
        elsewhere = action.dest.startswith("data.") and not self._prog.endswith("fit")
        if not action.dest.endswith(".help") and "--print_config" not in action.option_strings and not elsewhere:
            super().add_argument(action)

    def _format_action_invocation(self, action: Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        short = [option for option in action.option_strings if "_" not in option] or action.option_strings
        valued = action.nargs != 0 and "." not in action.dest
        return ", ".join(short) + (f" {action.dest.upper()}" if valued else "")

    def _expand_help(self, action: Action) -> str:
        words = " ".join((action.help or "").split())
        if action.dest == "data" and words.startswith("Path to"):
            fields = "" if self._prog.endswith("fit") else ", its fields as in ppl-vae fit --help"
            words = f"a source (digits, mnist, a .csv, .npy, ... file) or a YAML file of a whole declaration{fields}"
        if "." in action.dest:
            words = first_words(words, 2 * (WIDTH - POSITION) - 10)
        choices = str(action.metavar or "")
        if choices.startswith("{") and "true" not in choices:
            words += f" {choices}"
        number = isinstance(action.default, (int, float)) and not isinstance(action.default, bool)
        said = number or (isinstance(action.default, str) and action.default not in UNSAID)
        return f"{words} ({action.default})" if said else words


def first_words(text: str, most: int) -> str:
    """The first clause of a text without marks and asides, at most so many characters.

    Examples:
        >>> first_words("names of the ``columns`` (a few) that are data, in order; by default all.", 60)
        'names of the columns that are data, in order'
    """
    plain = re.sub(r" \([^()]*\)", "", text).replace("``", "")
    return textwrap.shorten(BOUNDARY.split(plain, maxsplit=1)[0].rstrip("."), most, placeholder=" ...")

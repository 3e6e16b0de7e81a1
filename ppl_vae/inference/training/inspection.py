"""The sample statements of both programs as they run: what their distributions are made of, and how likely their values are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Distribution

__all__ = ["RanSite", "SiteRecorder", "extreme"]


class RanSite(NamedTuple):
    """A ``pyro.sample`` statement as it ran.

    Attributes:
        name, program: its name, in the guide or the model.
        parameters: what its distribution was made of, floating-point tensors by name.
        value: drawn or observed.
        observed: which of both.
        log_prob: of its value, by datum and plate; ``None`` where it has none.
    """

    name: str
    program: Literal["guide", "model"]
    parameters: dict[str, Tensor]
    value: Tensor
    observed: bool
    log_prob: Tensor | None

    @property
    def arguments(self) -> dict[str, Tensor]:
        """What its distribution was made of, by name, and its ``value``."""
        return {**self.parameters, "value": self.value.detach()}

    @property
    def ranges(self) -> dict[str, list[float]]:
        """The smallest and largest value of each argument."""
        return {name: [float(v.detach().min()), float(v.detach().max())] for name, v in self.arguments.items()}

    @property
    def values(self) -> dict[str, Tensor]:
        """The arguments, by the name of the site and theirs."""
        return {f"{self.name}.{name}": value for name, value in self.arguments.items()}


class SiteRecorder(Messenger):
    """Takes note of the sites as they run, in ``sites``; the model's come second."""

    def __init__(self) -> None:
        super().__init__()
        self.sites: list[RanSite] = []

    def _pyro_post_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            return
        name, fn, value = msg["name"], msg["fn"], msg["value"]
        in_model = msg["is_observed"] or any(site.name == name for site in self.sites)
        program: Literal["guide", "model"] = "model" if in_model else "guide"
        log_prob = _log_prob(fn, value)
        self.sites.append(RanSite(name, program, dict(_parameters(fn)), value, msg["is_observed"], log_prob))


def extreme(sites: list[RanSite]) -> RanSite | None:
    """The site of the largest log-probability, in absolute value."""
    sizes = [float(site.log_prob.detach().abs().max()) for site in sites if site.log_prob is not None]
    known = [site for site in sites if site.log_prob is not None]
    return known[max(range(len(known)), key=sizes.__getitem__)] if known else None


def _parameters(fn: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The floating-point tensors that a distribution was made of, the innermost distributions included."""
    for name, value in vars(fn).items():
        if isinstance(value, Tensor) and value.is_floating_point() and value.numel():
            yield f"{prefix}{name}", value
        elif isinstance(value, Distribution):
            yield from _parameters(value, prefix)


def _log_prob(fn: Any, value: Any) -> Tensor | None:
    try:
        found: Tensor = fn.log_prob(value)
    except (NotImplementedError, RuntimeError, ValueError):
        return None
    return found

"""Where the data stand among the plates of two Pyro programs."""

from __future__ import annotations

from typing import Any, NamedTuple

from pyro import poutine
from pyro.distributions import Unit
from pyro.poutine.util import site_is_subsample

from ppl_vae.program.rows import grown
from ppl_vae.program.terms import sampled, summed_out
from ppl_vae.scores import ELBO, Score

__all__ = ["Plates", "check_pairing", "find_plates", "follows_story"]


class Plates(NamedTuple):
    """Where the data stand among a program's plates.

    ``nesting`` is the number of plate dimensions, ``data_dim`` (negative) the one that indexes the data, and ``size`` the
    number of data that the programs' log-probabilities are scaled to. ``enumerated`` tells whether the guide has a discrete
    latent variable that Pyro is to sum over. ``shared`` names the latent variables that are not of a datum, but of all data,
    ``summed`` the discrete ones that the model sums out, and ``subsampled`` the plates beside the data's of which a run sees a
    part, and the latent variables that are masked out of it. ``score`` is what the terms of a datum sum to, and ``names`` are
    what plates over the data are called: other plates may stand in the same dimension beside them. ``drawn`` tells whether the
    guide draws any latent variable, as points do not. ``mean_weight`` is that of the training data, 1 where all count once.
    """

    nesting: int
    data_dim: int
    size: int
    enumerated: bool
    shared: tuple[str, ...] = ()
    summed: tuple[str, ...] = ()
    subsampled: tuple[str, ...] = ()
    score: Score = ELBO
    names: tuple[str, ...] = ("data",)
    drawn: bool = True
    mean_weight: float = 1.0

    def of_data(self, site: Any) -> Any:
        """The plate over the data that a site stands in, so that each datum has its own; else ``None``."""
        return _of_data(site, self.data_dim, self.names)

    @property
    def undivided(self) -> tuple[str, ...]:
        """The variables that the model sums out over all data, whose log p(x) is no mean over them."""
        return tuple(name for name in self.summed if name in self.shared)


def check_pairing(model: poutine.Trace, guide: poutine.Trace) -> None:
    """Raise ``ValueError`` if model and guide have not the same latent sites, but for those that the model sums out.

    So it is if the guide observes what the model does, as one that runs the model: its likelihood would cancel the model's.
    """
    twice = sorted(
        name
        for name in set(model.observation_nodes) & set(guide.observation_nodes)
        if not isinstance(guide.nodes[name]["fn"], Unit)
    )
    if twice:
        raise ValueError(
            f"the guide observes {', '.join(twice)}, as the model does, so that log q(z) would cancel the likelihood: observe "
            "in the model alone, and hide it with pyro.poutine.block where the guide runs the model"
        )
    latent, proposed = ({name for name, site in sampled(half) if not site["is_observed"]} for half in (model, guide))
    latent -= set(summed_out(model, guide))
    # Pyro's automatic guides draw in unconstrained coordinates under names of their own.
    proposed -= {name for name in proposed if guide.nodes[name]["infer"].get("is_auxiliary")}
    unmatched = sorted(latent ^ proposed)
    if unmatched:
        discrete = [name for name in unmatched if name in latent and model.nodes[name]["fn"].has_enumerate_support]
        summed = f"; or let Pyro sum {discrete[0]} out, by infer={{'enumerate': 'parallel'}} in the model" if discrete else ""
        raise ValueError(
            f"the latent sites of model and guide differ: {', '.join(unmatched)} stands in only one of them; "
            f"every pyro.sample of the model that is not observed needs one of the same name in the guide{summed}"
        )


def follows_story(model: poutine.Trace, guide: poutine.Trace) -> bool:
    """Whether the guide draws the latent variables in the order of the model.

    Else the prior of one may depend on another that the guide draws after it, and the closed form of its KL, which is at a
    fixed prior, is no part of the ELBO.
    """
    order = [name for name, site in sampled(guide) if name in model.nodes and not site["is_observed"]]
    return order == [name for name in model.nodes if name in order]


def find_plates(model: poutine.Trace, guide: poutine.Trace, batch: int, declared: Any, known: tuple[str, ...]) -> Plates:
    """The plates of one run of both programs, but for their score.

    Args:
        model: its sites.
        guide: those of the same run.
        batch: B, the number of rows that they were run on.
        declared: N, if it is known.
        known: what plates over the data are called, from an earlier run.

    Raises:
        ValueError: no plate over the data around an observed site, or more than one.
    """
    stacks = [site["cond_indep_stack"] for site in model.nodes.values() if site["type"] == "sample"]
    nesting = max((-frame.dim for stack in stacks for frame in stack if frame.vectorized), default=0)
    frame = _over_the_data(model, batch, known)
    names = _names_of_data(model, guide, frame, batch, known)
    enumerated = any(guide.nodes[name]["infer"].get("enumerate") == "parallel" for name in guide.stochastic_nodes)
    counted = isinstance(declared, int) and declared > 0
    size = (declared if counted else batch) if grown(frame, batch) else frame.full_size
    return Plates(
        nesting=nesting,
        data_dim=frame.dim,
        size=size,
        enumerated=enumerated,
        shared=_shared(model, frame.dim, names) or _shared(guide, frame.dim, names),
        summed=summed_out(model, guide),
        subsampled=_subsampled(model, guide, frame.dim, names),
        names=names,
    )


def _over_the_data(model: poutine.Trace, batch: int, known: tuple[str, ...]) -> Any:
    """The plate of the data, one of the size of the batch or of none."""
    observed = {site: model.nodes[site]["cond_indep_stack"] for site in model.observation_nodes}
    frames = {frame for stack in observed.values() for frame in stack if frame.vectorized}
    fitting = [frame for frame in frames if frame.size == batch] or [frame for frame in frames if frame.size == -1]
    found = [frame for frame in fitting if frame.name in (known or ("data",))] or fitting
    if len({frame.dim for frame in found}) == 1:
        return min(found, key=lambda frame: frame.name)
    if found:
        names = ", ".join(sorted(repr(frame.name) for frame in found))
        raise ValueError(f"the plates {names} all have the batch's size {batch}: call the one over the data 'data'")
    raise ValueError(_without_plate(observed, frames, batch))


def _names_of_data(
    model: poutine.Trace, guide: poutine.Trace, data: Any, batch: int, known: tuple[str, ...]
) -> tuple[str, ...]:
    """The plate over the data, by all the names that the programs have for it: as large as their first batch in its dimension.

    Raises:
        ValueError: one of them was as large as an earlier batch, but is not as large as this one.
    """
    sites = [site for trace in (model, guide) for _, site in sampled(trace)]
    frames = [frame for site in sites for frame in site["cond_indep_stack"] if frame.vectorized and frame.dim == data.dim]
    for frame in frames:
        if frame.name in known and frame.size not in (batch, -1):
            raise ValueError(
                f"the plate {frame.name!r} had the size of a batch and now has {frame.size} of {batch}, so nobody can tell "
                "it from the plate over the data: take another batch_size, or give it a dimension of its own (dim=-2)"
            )
    if known:
        return tuple(dict.fromkeys((*known, data.name)))
    return tuple(dict.fromkeys([data.name, *(frame.name for frame in frames if frame.size in (batch, -1))]))


def _of_data(site: Any, data_dim: int, names: tuple[str, ...]) -> Any:
    return next((frame for frame in site["cond_indep_stack"] if frame.dim == data_dim and frame.name in names), None)


def _without_plate(observed: dict[str, Any], frames: Any, batch: int) -> str:
    if not observed:
        return "the model observes nothing: give its data to one of its sites, pyro.sample(..., obs=x)"
    for frame in frames:
        if frame.size < frame.full_size:
            return (
                f"the plate {frame.name!r} takes {frame.size} of {frame.full_size} data, but the batch, which is a subsample "
                f"already, holds {batch}: write pv.data_plate(N, x) and leave subsample_size to the method's batch_size; an "
                "automatic guide takes create_plates=lambda x: pv.data_plate(N, x)"
            )
    stands = ", ".join(f"{name!r} in {_told(stack)}" for name, stack in observed.items())
    return (
        f"no observed site stands in a pyro.plate over the {batch} data of the batch, but {stands}: write the observation "
        "inside `with pv.data_plate(N, x):`, N the number of training data, so that the ELBO can be given per datum, or give "
        "the method batch_size = N"
    )


def _told(stack: Any) -> str:
    plates = [f"{frame.name!r} of {frame.size} (dim {frame.dim})" for frame in stack if frame.vectorized]
    return f"the plates {', '.join(plates)}" if len(plates) > 1 else f"the plate {plates[0]}" if plates else "no plate"


def _shared(program: poutine.Trace, data_dim: int, names: tuple[str, ...]) -> tuple[str, ...]:
    """The latent sites that stand outside of the plate over the data."""
    latent = {name: program.nodes[name] for name in program.stochastic_nodes if not site_is_subsample(program.nodes[name])}
    return tuple(name for name, site in latent.items() if _of_data(site, data_dim, names) is None)


def _subsampled(model: poutine.Trace, guide: poutine.Trace, data_dim: int, names: tuple[str, ...]) -> tuple[str, ...]:
    """The plates beside that over the data of which a run sees a part, and the latent variables whose term is masked out."""
    masked = {name for name, site in sampled(guide) if site["mask"] is False and not site["is_observed"]}
    frames = {frame for trace in (model, guide) for _, site in sampled(trace) for frame in site["cond_indep_stack"]}
    others = {frame for frame in frames if frame.dim != data_dim or frame.name not in names}
    return tuple(sorted({frame.name for frame in others if (frame.full_size or 0) > frame.size} | masked))

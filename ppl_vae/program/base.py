"""What the programs of models and guides inherit, and what they must and may say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro
from pyro.nn import PyroModule
from torch import Tensor

from ppl_vae.program.capabilities import generates
from ppl_vae.program.joint import Joint, draw
from ppl_vae.program.rows import data_plate
from ppl_vae.program.sites import Site
from ppl_vae.types import FOUND_LABELS

__all__ = ["GuideProgram", "ModelProgram"]


class ModelProgram(PyroModule):
    """p(x, z), a Pyro program that is called with a batch: x ``(B, *event)`` and what else it ``reads``.

    It **must** have ``prior``, whose call returns p(z), and ``decode(z, *known)``, p(x | z); or say its story itself by
    ``forward``: latent variables from top to bottom, then ``pyro.sample("x", ..., obs=x)``, all inside
    ``data_plate(self.size, x)``. Of several latent variables ``prior()`` is a :class:`~ppl_vae.program.joint.Joint`, and z a
    mapping by their names.

    It **may** say the facts below, ``known`` and ``prior_given`` if it is conditioned on what is known of x, and any ability of
    this file by having its members: :class:`Marginal`, :class:`KnownPosterior`, :class:`Imputing`, :class:`Conjugate`,
    :class:`Solvable`, :class:`Comparable`, :class:`Growing`.

    It **inherits** that every method that can fit it does, and all that a fit is asked: evaluation, gaps, annealing, encoding
    and decoding, samples, pictures and reports.

    Attributes:
        size: N, the number of training data.
        latent: what z is where its support does not tell: ``continuous``, ``discrete``, the states of a ``lattice``, grids of
            ``quantized`` codes, or a ``code`` that has no p(z).
        reads: the fields of a batch, x first.
        score: what the sum of its terms is where that is no ELBO: a :class:`~ppl_vae.Score`, or the name of one.
        exact_score: what it is where the guide is the exact posterior, if that is more than ``score`` says.
        learning_rate: of SVI where the method declares none.
        parameter_sites: the names of parameters that carry priors.
        known_entries: which entries ``(*event)`` of x are a condition and not modelled.
        given_prior: whether p(z) depends on what is known.
        drawn_from: where z of new data comes from, in words.
        documents: whether a datum is a document: counts of words, given how many there are; p(x | z) has their ``log_probs``.
        random_start: whether also the first start of EM is random.
        takes_missing: whether p(x | z) leaves missing entries (NaN) out.
        takes_weights: whether what it offers of all rows at once (``em``, ``closed_form``, ``log_likelihood``) counts each by
            the ``weights`` of the rows that it is given; gradient steps weigh any program's terms.
        beside_columns: columns of what the guide's encoder is told beside x.
        covariates: the names of what it is conditioned on, where these are neither classes nor a part of x: fields that it
            reads, and others that it finds in x.
        element_features: how many numbers p(x | z) is made of for each element of x: as many as there are words, of words.
        data_dependent: whether what it does to a batch hangs on the values in it, so that no record repeats it.
        tempered: of a model of rows, whether what follows is drawn at a ``temperature`` and a ``top_p`` that are told.
        free_parameters: how many numbers the data choose, of which other values are another p(x, z); what is counted twice, as
            rotations of factors are, is left out. By default all elements of the parameters that are fitted.
    """

    size: int | None = None
    latent: str = "continuous"
    reads: tuple[str, ...] = ("x",)
    score: Any = None
    exact_score: Any = None
    learning_rate: float | None = None
    known_entries: Tensor | None = None
    given_prior: bool = False
    drawn_from: str = "the prior"
    random_start: bool = False
    takes_weights: bool = False
    beside_columns: int = 0
    covariates: tuple[str, ...] = ()
    data_dependent: bool = False
    tempered: bool = False

    prior: Any
    decode: Any

    def forward(self, *batch: Any, **fields: Any) -> Any:
        """The story, with the batch's x observed."""
        batch = (*batch, *fields.values())
        known = self.known(*batch)
        with data_plate(self.size, batch[0]):
            z = draw(next(iter(self.sites)), self.prior_given(*known))
            return pyro.sample("x", self.decode(z, *known), obs=batch[0])

    @property
    def sites(self) -> Mapping[str, Site]:
        """The latent variables, by name and in the order of the story: those of ``prior()``, a lone one called z.

        None of a program without a ``prior``, whose traces alone tell them.
        """
        if not generates(self):
            return {}
        p = self.prior()
        if isinstance(p, Joint):
            shapes, supports = p.event_shape, p.support
            return {name: Site(name, tuple(shapes[name]), supports[name]) for name in p.names}
        return {"z": Site("z", tuple(p.event_shape), p.support)}

    @property
    def takes_missing(self) -> bool:
        """Whether p(x | z) leaves missing entries (NaN) out."""
        return False

    @property
    def element_features(self) -> int:
        """How many numbers p(x | z) is made of for each element of x."""
        return 1

    @property
    def documents(self) -> bool:
        """Whether a datum is a document: counts of words, given how many there are."""
        return False

    @property
    def parameter_sites(self) -> tuple[str, ...]:
        """The names of parameters that carry priors."""
        return ()

    @property
    def free_parameters(self) -> int:
        """How many numbers the data choose: all elements of the parameters that are fitted."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)

    @property
    def labelled(self) -> bool:
        """Whether it reads class labels beside x."""
        return "y" in self.reads

    @property
    def classifies(self) -> bool:
        """Whether it reads the class of a row that has one, and takes rows without as well."""
        return FOUND_LABELS in self.reads

    def known(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """What p(z) and p(x | z) of a batch are conditioned on: nothing."""
        return ()

    def prior_given(self, *known: Tensor) -> Any:
        """p(z), given what is known of a batch."""
        return self.prior()


class GuideProgram(PyroModule):
    """q(z | x), a Pyro program that is called with the same batches as its model, and has its latent sites and plates.

    It **must** have ``posterior(*batch)``, q(z | x) as a distribution, or of several latent variables as a
    :class:`~ppl_vae.program.joint.Joint`; or say itself by ``forward`` what it samples, inside ``data_plate(self.size, x)``.

    It **may** say the facts below, and ``local`` and ``at`` (:class:`Family`), by which gaps between its family and the best
    posterior of each datum are found.

    It **inherits** that it is fitted by SVI, and all that a fit is asked that needs q: codes, reconstructions, what the latent
    variables hold.

    Attributes:
        size: N, the number of training data.
        site: the name of a lone latent variable.
        exact: whether q(z | x) is p(z | x).
        exact_latents: of a guide over parameters as well, whether q(z | x, theta) is p(z | x, theta).
        point: whether q is a point.
        certain: whether q is a point of a discrete variable, with probability one: one draw tells all that many do.
        mean_field: whether the analytic KL of each site may be used; by default unless q is exact, since the sampled one makes
            the ELBO of an exact posterior log p(x) for every sample.
        score: what the sum of the pair's terms is where that is no ELBO: a :class:`~ppl_vae.Score`, or the name of one.
        foreign_passes: of networks, that the density of a draw of another q takes.
    """

    size: int | None = None
    site: str = "z"
    exact: bool = False
    point: bool = False
    certain: bool = False
    score: Any = None
    foreign_passes: int = 0

    posterior: Any

    def forward(self, *batch: Any, **fields: Any) -> Any:
        """Draw the latent variables of each datum of the batch."""
        batch = (*batch, *fields.values())
        return self.draw(self.posterior(*batch), *batch)

    def draw(self, q: Any, *batch: Tensor) -> Any:
        """Draw the latent variables of each datum of the batch from q, whose batch shape is ``(B,)``."""
        with data_plate(self.size, batch[0]):
            return draw(self.site, q)

    @property
    def exact_latents(self) -> bool:
        """Whether q(z | x, theta) is p(z | x, theta), of a guide over parameters as well."""
        return False

    @property
    def mean_field(self) -> bool:
        """Whether the analytic KL of each site may be used."""
        return not self.exact

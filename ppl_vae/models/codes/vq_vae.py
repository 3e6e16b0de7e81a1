"""The generative story of vector-quantized autoencoders (van den Oord, Vinyals and Kavukcuoglu 2017; Razavi et al. 2019).

for n in 1..N:
k_n ~ p(k)                              a grid of codes
x_n ~ p(x | h = decoder(e_k))           likelihood, e_k the vector at each place

and with several levels, from the top to the bottom:

kL_n ~ p(kL)
kl_n ~ p(kl | those above),  l = L-1, ..., 1
x_n ~ p(x | h = decoder(e_k1, those above))

where each p(k) is p(k | y_n) of a model that is given the classes y.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from ppl_vae.declaration import require
from ppl_vae.likelihoods import Bernoulli, Likelihood
from ppl_vae.models.base import PosteriorFamily
from ppl_vae.models.codes.codebook import Codebook
from ppl_vae.models.codes.program import QuantizedProgram
from ppl_vae.models.conditions import Condition
from ppl_vae.models.decoded import Decoded
from ppl_vae.nn import CausalNetwork, Conv, Network
from ppl_vae.priors.codes import CodesPrior, UniformCodes, codes_story
from ppl_vae.types import DataSpec

__all__ = ["VQVAE"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class VQVAE(Decoded):
    """VQ-VAE: p(k) p(x | k) of a grid of codes k, each the number of a vector; of several codebooks VQ-VAE-2.

    Its guide is a point, but of a discrete variable: q(k | x) = 1 at one grid of codes, whose log is 0. So log p(x | k) +
    log p(k) is a true bound on log p(x), and it is the ELBO. Under uniform codes log p(k) = -H W ln K; a causal network such as
    ``PixelCNN`` as p(k) learns beside the codes, which get no gradient from it, or after them (``Stages``).

    Codes are called k; of several levels kL, ..., k1 from the top, k1 the nearest to x. A level hangs on those above it through
    features that the decoder is given too.

    Args:
        codebook: the vectors, or of several levels theirs from the top to the bottom.
        prior: p(k), ``UniformCodes`` or a causal network; of several levels, each its own of this kind, given those above.
        likelihood: p(x | h), where h = decoder(e_k).
        decoder: the network from vectors ``(D, H, W)`` to the likelihood's features, and from each level to the next below;
            mirrored, the guide's encoder too where that declares none.
        condition: ``Labels()`` for p(k | y) of each level, y the class of a datum, which the networks of the prior are told;
            codes stay what they are, p(x | k) and the guide know of no class. The ELBO is then one of log p(x | y).

    Raises:
        ValueError: no codebook, a condition that is not the class, or one, or a rate, of uniform codes; on checking, data
            without labels that are needed; on building, a grid that the networks' maps do not match.

    Examples:
        >>> print(VQVAE(codebook=Codebook(size=512, grid=(7, 7))))
        k ~ Uniform{1..K} at each of 7 x 7, K = 512; x | k ~ Bernoulli(logits = Conv(e_k))
    """

    posterior_family: ClassVar[PosteriorFamily] = "codes"

    codebook: Codebook | tuple[Codebook, ...] = Codebook()
    prior: CodesPrior | CausalNetwork = UniformCodes()
    likelihood: Likelihood = Bernoulli()
    decoder: Network = Conv(channels=(32, 64), spatial=True)
    condition: Condition | None = None

    def __post_init__(self) -> None:
        if isinstance(self.codebook, (tuple, list)):
            object.__setattr__(self, "codebook", tuple(self.codebook))
        require(len(self.codebooks) > 0, "at least one codebook", self.codebook)
        learns = isinstance(self.prior, CausalNetwork)
        if any(book.rate for book in self.codebooks.values()):
            require(learns, "a prior that learns what codes cost, such as PixelCNN(), or codebooks of rate=0", self.prior)
        if self.condition is not None:
            require(self.condition.labelled, "a condition=Labels() of a VQVAE, or none", self.condition)
            require(learns, "a prior that can be told the class, such as PixelCNN(), or no condition", self.prior)

    @property
    def codebooks(self) -> dict[str, Codebook]:
        """By the names of their codes, from the top to the bottom."""
        books = (self.codebook,) if isinstance(self.codebook, Codebook) else self.codebook
        names = ["k"] if len(books) == 1 else [f"k{place}" for place in range(len(books), 0, -1)]
        return dict(zip(names, books, strict=True))

    @property
    def labelled(self) -> bool:
        """Whether it is given the class of each datum."""
        return self.condition is not None

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` with the remedy if the data have no labels that it is given, or lie outside the support."""
        super().check(spec)
        if self.condition is not None:
            self.condition.check(spec)

    def without_latents(self, spec: DataSpec) -> Likelihood | None:
        """The likelihood; nothing that compares where codes are uniform, no model of how they are, or what is left knows y."""
        return None if isinstance(self.prior, UniformCodes) or self.labelled else self.likelihood

    def build(self, spec: DataSpec) -> QuantizedProgram:
        """The Pyro program for data of this shape and number.

        Raises:
            ValueError: a grid that the decoder's maps do not match.
        """
        if self.decoder.images and len(spec.event_shape) < 2:
            raise ValueError(
                f"expected images for the {type(self.decoder).__name__} of a VQVAE, got vectors of {spec.event_shape[-1]}: "
                "declare decoder=MLP(), or give the data with the shape of their images"
            )
        return QuantizedProgram(
            spec=spec,
            codebooks=self.codebooks,
            prior=self.prior,
            likelihood=self.likelihood,
            network=self.decoder,
            condition=self.condition,
        )

    def story(self) -> str:
        """The sites from top to bottom, as mathematics."""
        sites, told, y = [] if self.condition is None else [f"y = {self.condition.story()}"], "", "y" if self.labelled else ""
        for name, book in self.codebooks.items():
            known = ", ".join(filter(None, (told, y)))
            given = f" | {known}" if known else ""
            height, width = book.grid
            sites.append(f"{name}{given} ~ {codes_story(self.prior, known)} at each of {height} x {width}, K = {book.size}")
            told = f"{name}, {told}" if told else name
        vectors = ", ".join(f"e_{name}" for name in told.split(", "))
        return "; ".join([*sites, f"x | {told} ~ {self.likelihood.story(self.decoder.story(vectors))}"])

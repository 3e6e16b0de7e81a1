"""A codebook: K vectors, of which the nearest stands for each output of an encoder (van den Oord et al. 2017)."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.utils.weak import WeakIdKeyDictionary

from ppl_vae.declaration import Declaration, require
from ppl_vae.exact.mixture_start import kmeans, kmeans_plus_plus
from ppl_vae.models.codes.updates import EMA, CodebookUpdate, Gradient

__all__ = ["Codebook", "Quantizer"]

CodesStart = Literal["kmeans", "uniform"]

OUTPUTS, PER_CODE, ITERATIONS = 20_000, 50, 10  # of the k-means that codes start at
RESTART = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Codebook(Declaration):
    r"""K vectors of D numbers, of which one stands at each place of an H x W grid.

    Of the encoder's outputs :math:`z_{ij}` the codes are :math:`k_{ij} = \arg\min_k |z_{ij} - e_k|`. What the decoder is given
    is :math:`e_k`, and what would be its gradient goes to z as it is (straight through). The commitment holds the outputs to
    their vectors. It is a loss beside the ELBO, of :math:`\beta \sum_{ij} |z_{ij} - e_{k_{ij}}|^2`, summed over the grid and
    the D numbers as the ELBO is over all that a datum has, so that it stands against nats per datum; no reported number holds
    it but ``objective``. Vectors are D long whatever the encoder, and evaluating moves none of them.

    With a ``rate`` outputs learn what their codes cost under a prior that is trained beside them, as in entropy-constrained
    quantization (Chou, Lookabaugh and Gray 1989): of the two vectors nearest to an output, at distances :math:`d_1, d_2`, the
    cheaper one draws it. The loss is :math:`-\rho \sum_{ij} \sum_{c=1,2} \pi_c \log p(k_{ij} = c | k_{<ij})`, :math:`\pi =
    \mathrm{softmax}(-d^2 / \bar d_1^2)` with the mean over the batch below; the prior gets no gradient from it.

    Args:
        size: K, how many vectors there are.
        dim: D, numbers of each.
        grid: height H and width W of the map of codes.
        update: how the vectors learn: ``EMA()``, or ``Gradient()`` for a loss of their own; by default the first, but with a
            rate the second: averages run into the outputs that are held off a dear code once the learning rate has fallen.
        commitment: beta.
        restart: training steps in which no output had a code, after which its vector is put at a random output of the batch;
            ``None`` for never; ``auto`` for 100, and never with a rate, which leaves codes out that cost more than they bring.
        start: where the vectors start: at the centres of ``kmeans`` of the untrained encoder's outputs on the training data, or
            ``uniform`` in [-1 / K, 1 / K].
        rate: rho, the weight of what codes cost; 1 climbs the bound, 0 leaves codes to the reconstruction.
        warm_up: training steps in which the rate grows from 0 to what it is.

    Raises:
        ValueError: a number out of range.

    Examples:
        >>> Codebook(size=512, grid=(8, 8)).size
        512
    """

    size: int = 128
    dim: int = 64
    grid: tuple[int, int] = (7, 7)
    update: CodebookUpdate | None = None
    commitment: float = 0.25
    restart: int | Literal["auto"] | None = "auto"
    start: CodesStart = "kmeans"
    rate: float = 0.0
    warm_up: int = 2000

    def __post_init__(self) -> None:
        object.__setattr__(self, "grid", tuple(self.grid))
        require(all(type(side) is int for side in self.grid), "a grid of whole numbers", self.grid)
        require(self.size >= 2, "a size of at least 2 vectors", self.size)
        require(self.dim >= 1, "a dim of at least 1", self.dim)
        require(len(self.grid) == 2 and min(self.grid) >= 1, "a grid of a height and a width of at least 1", self.grid)
        require(0 <= self.commitment < math.inf, "a commitment of at least 0", self.commitment)
        sound = self.restart is None or self.restart == "auto" or self.restart >= 1
        require(sound, "a restart after at least 1 step, auto or None", self.restart)
        require(self.start in get_args(CodesStart), f"a start of {', '.join(get_args(CodesStart))}", self.start)
        require(0 <= self.rate < math.inf, "a rate of at least 0", self.rate)
        require(self.warm_up >= 0, "a warm_up of at least 0 steps", self.warm_up)

    @property
    def learning(self) -> CodebookUpdate:
        """How the vectors learn."""
        return self.update or (Gradient() if self.rate else EMA())

    @property
    def idle_steps(self) -> int | None:
        """The steps after which a vector is restarted, if it ever is."""
        if self.restart == "auto":
            return None if self.rate else RESTART
        return self.restart

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the encoder's output, ``(D, H, W)``."""
        return (self.dim, *self.grid)

    def build(self) -> Quantizer:
        """The vectors, and what assigns codes."""
        return Quantizer(self)


class Quantizer(nn.Module):
    """The built codebook, which model and guide share.

    Its vectors move in :meth:`learn` alone, and there only in training mode where gradients are taken.
    """

    idle: Tensor
    started: Tensor
    steps: Tensor

    def __init__(self, declared: Codebook) -> None:
        super().__init__()
        self.size, self.dim, self.grid = declared.size, declared.dim, declared.grid
        self.commitment, self.restart = declared.commitment, declared.idle_steps
        self.rate, self.warm_up = declared.rate, declared.warm_up
        self.vectors = declared.learning.build(declared.size, declared.dim)
        self.register_buffer("idle", torch.zeros(declared.size))  # training steps in which no output had this code
        self.register_buffer("started", torch.tensor(declared.start == "uniform"))
        if self.rate:
            self.register_buffer("steps", torch.zeros(()))  # of training
        self._outputs = WeakIdKeyDictionary()  # of the very tensors of codes that were drawn, as long as these live

    @property
    def support(self) -> constraints.Constraint:
        """Of a grid of codes."""
        return constraints.independent(constraints.integer_interval(0, self.size - 1), 2)

    @torch.no_grad()
    def nearest(self, outputs: Tensor) -> Tensor:
        """Codes ``(..., H, W)`` int64 of outputs ``(..., D, H, W)``."""
        vectors = self.vectors.values
        rows = self._rows(outputs)
        least = torch.addmm(vectors.square().sum(1), rows, vectors.T, alpha=-2).argmin(1)
        return least.reshape(*outputs.shape[:-3], *outputs.shape[-2:])

    def forward(self, codes: Tensor) -> Tensor:
        """Vectors ``(..., D, H, W)`` of codes ``(..., H, W)``, without gradients of their own.

        Of the very tensor that was drawn gradients go to the outputs that it is of (straight through).

        Raises:
            ValueError: real numbers that are no codes.
        """
        vectors = self.vectors.values.detach()[self._whole(codes)].movedim(-1, -3)
        outputs = self._outputs.get(codes)
        return vectors if outputs is None else vectors + (outputs - outputs.detach())  # zero, to the last bit

    def remember(self, codes: Tensor, outputs: Tensor) -> None:
        """Let gradients of these very codes go to their outputs."""
        self._outputs[codes] = outputs

    def loss(self, codes: Tensor, outputs: Tensor) -> Tensor:
        """Commitment, and what the vectors lose by themselves, of each datum ``(...)``: summed over the grid and D."""
        held = (outputs - self(codes).detach()).square().sum((-3, -2, -1))
        own = self.vectors.loss(self._rows(outputs), codes.flatten())
        return self.commitment * held + own.reshape(codes.shape).sum((-2, -1))

    def rate_loss(self, outputs: Tensor, costs: Tensor) -> Tensor:
        """What the codes of outputs ``(..., D, H, W)`` cost by soft shares of the two nearest, of each datum ``(...)``.

        Args:
            outputs: the encoder's.
            costs: ``-log p`` of every code at each place, ``(..., H, W, K)``.
        """
        rows = outputs.movedim(-3, -1)
        vectors = self.vectors.values.detach().clone()  # they move before the gradient is taken
        distances = rows.square().sum(-1, keepdim=True) + vectors.square().sum(1) - 2 * rows @ vectors.T
        near, which = distances.topk(2, dim=-1, largest=False)
        spread = near[..., 0].detach().mean().clamp_min(torch.finfo(near.dtype).tiny)
        shares = (-near / spread).softmax(-1)
        grown = (self.steps / self.warm_up).clamp_max(1.0) if self.warm_up else 1.0
        return self.rate * grown * (shares * costs.gather(-1, which)).sum((-3, -2, -1))

    @torch.no_grad()
    def learn(self, codes: Tensor, outputs: Tensor) -> None:
        """Let the vectors follow the outputs ``(..., D, H, W)`` of these codes, and put idle ones at some of these."""
        rows, codes = self._rows(outputs), codes.flatten()
        counts = rows.new_zeros(self.size).index_add_(0, codes, rows.new_ones(len(rows)))
        self.vectors.follow(rows, codes, counts)
        if self.rate:
            self.steps += 1
        if self.restart is not None:
            idle = torch.where(counts > 0, 0.0, self.idle + 1)
            dead = idle >= self.restart
            places = torch.randint(len(rows), (self.size,), device=rows.device)
            self.vectors.put(dead, rows[places])
            self.idle.copy_(torch.where(dead, 0.0, idle))

    @torch.no_grad()
    def begin(self, outputs: Tensor, generator: torch.Generator) -> None:
        """Put the vectors at the centres of outputs ``(R, D, H, W)``, once.

        Raises:
            ValueError: more vectors than outputs.
        """
        rows = self._rows(outputs)
        if len(rows) < self.size:
            height, width = self.grid
            raise ValueError(
                f"expected at most as many codes as encoder outputs to start at, {len(outputs)} rows x {height} x {width} = "
                f"{len(rows)}, got a codebook of {self.size}: lower its size, or start='uniform'"
            )
        some = max(OUTPUTS, PER_CODE * self.size)
        chosen = torch.randperm(len(rows), generator=generator, device=generator.device)[:some]
        rows = rows[chosen.to(rows.device)]
        centres = kmeans(rows, kmeans_plus_plus(rows, self.size, generator), ITERATIONS)
        self.vectors.put(torch.ones_like(self.idle, dtype=torch.bool), centres.to(rows.dtype))
        self.started.fill_(True)

    def _rows(self, outputs: Tensor) -> Tensor:
        """Outputs ``(..., D, H, W)`` as rows ``(N, D)``, without gradients."""
        # A copy, since an exporter that gives the outputs other strides keeps what the reshaping of these was, a view.
        return outputs.detach().movedim(-3, -1).clone(memory_format=torch.contiguous_format).reshape(-1, self.dim)

    def _whole(self, codes: Tensor) -> Tensor:
        if not codes.is_floating_point():
            return codes
        if bool(((codes < 0) | (codes > self.size - 1) | (codes != codes.round())).any()):  # as they come from outside alone
            raise ValueError(
                f"expected codes that are whole numbers from 0 to {self.size - 1}, got {codes.min():g} to {codes.max():g}"
            )
        return codes.long()

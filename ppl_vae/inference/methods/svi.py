"""Stochastic variational inference: an objective climbed by minibatch gradients."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import ClassVar, Literal, get_args

from ppl_vae.data import Data
from ppl_vae.declaration import require
from ppl_vae.guides.amortized import LatentGuide
from ppl_vae.guides.floors import NormalizedMeans
from ppl_vae.inference.methods.base import Method
from ppl_vae.inference.objectives import ELBO, Objective
from ppl_vae.inference.objectives.given import objective_of
from ppl_vae.inference.training.clock import Stopwatch
from ppl_vae.inference.training.draws import check_sampling
from ppl_vae.inference.training.loop import Training
from ppl_vae.inference.training.optimizers import OPTIMIZERS
from ppl_vae.inference.training.plan import TrainingPlan
from ppl_vae.inference.training.sampling import Sampling
from ppl_vae.inference.training.schedules import SCHEDULES, OnNonFinite
from ppl_vae.inference.training.start import check_rows, meet, start_pair
from ppl_vae.priors.posteriors import PosteriorMixture
from ppl_vae.program.capture import Compile
from ppl_vae.program.context import evaluating, seeded
from ppl_vae.program.facts import posterior_prior
from ppl_vae.program.machine import Precision
from ppl_vae.program.pair import Pair
from ppl_vae.program.parts import Parts, training_only
from ppl_vae.program.processes import current
from ppl_vae.storage import NULL_CHECKPOINTER, AnyCheckpointer
from ppl_vae.types import FitWarning, Record, Report

__all__ = ["SVI"]

MOST_PASSES = 4_000_000  # of a flow's networks in a step: some ten seconds
LEARNING_RATE = 2e-3  # of models that say none: networks'


@dataclasses.dataclass(frozen=True, kw_only=True)
class SVI(Method):
    """Stochastic variational inference (Hoffman et al. 2013) with a fused torch optimizer.

    In a process group of torch.distributed, as ``torchrun --nproc-per-node N -m ppl_vae fit ...`` begins one, the processes
    share every step: each takes its part of the batch's rows, of all of which it has a copy, the gradients add up, and all take
    the same step. ``batch_size`` is that of the whole batch, and the numbers are those of one process to rounding: noise is
    drawn for the whole batch in each of them. Where draws take more or fewer random numbers by their parameters, as those of
    gamma variables, and where networks draw by themselves, as dropout does, a remark tells that each process draws its own.
    What hangs on the rows of a batch together cannot be shared: free bits, a capacity, ``InfoVAE``, moving averages, batch
    normalization.

    Args:
        seed: of the initial parameters, the order of the data and every sample.
        objective: what is maximized; also an object of ``pyro.infer``, such as ``TraceGraph_ELBO()``, or a function
            ``loss(model, guide, *batch)``, each taken as it is (see :class:`~ppl_vae.PyroLoss`).
        optimizer: the gradient method.
        epochs: passes over the training data.
        batch_size: B, data per step; the last batch of an epoch may be smaller, none is dropped.
        learning_rate: of the first epoch; by default the model's own, 2e-3 for networks.
        schedule: how the learning rate falls with the epochs: not at all; along a half ``cosine`` towards zero; or
            ``exponential`` to a hundredth.
        clip_norm: gradients of a larger norm (in nats per datum) are scaled down to it.
        skip_norm: steps whose gradient has a larger norm, before it is clipped, are not taken, as for the spikes of deep
            hierarchies (Child 2021, "Very deep VAEs"); a history's ``skipped`` counts them. They move no buffers either, as
            codebooks of ``EMA`` are. One that is not a number is left to ``on_nonfinite``.
        alternate: the schedule of the EM view: an E-step on the guide's parameters phi, then an M-step on the model's theta, by
            turns from step to step (``steps``) or from epoch to epoch (``epochs``), each with its own optimizer; by default
            both at once.
        encoder_steps: steps of the guide before each of the model, where they alternate by steps. With several the guide does
            not lag behind a decoder that learns to do without z (He et al. 2019, "Lagging inference networks and posterior
            collapse"); go on with both at once by a second fit that starts from the first, ``warm_start``.
        patience: stop after so many epochs without a better validation ELBO.
        restore_best: end with the parameters of the epoch with the best validation ELBO.
        sampling: how often each training row is drawn in an epoch, such as ``LatentDensity(alpha=0.01)``, which draws rows of
            rare codes more often; by default each row once. What is climbed is then the mean over the rows as they are drawn,
            while every reported ELBO stays that of the data.
        only: the parts of model and guide that are trained, by their dotted names, such as ``("model.prior", "guide")``; by
            default all. The others stand still: they need no gradient, their modules are in evaluation mode, and they are not
            asked for a start. :class:`~ppl_vae.Stages` trains one part after another.
        compile: whether steps are recorded and compiled: never (``False``), always (``True``, an error where it cannot be
            done), or where it pays (``auto``: recorded for fits of 100 steps or more, compiled for 5000 or more). Compiled
            steps are kept on disk for the next fit, in ``$PPL_VAE_CACHE`` or ``~/.cache/ppl_vae/compiled``.
        precision: of the networks' layers: float32 as the data are, ``bf16`` operands, or ``tf32`` products. Log-probabilities
            and KL are computed and summed in float32. A CPU that would have to emulate ``bf16`` keeps to float32 and says so.
        on_nonfinite: what happens when the objective, a gradient or a parameter is no longer finite: ``stop`` with a
            post-mortem; ``skip`` the step, at most 20 of an epoch; or ``rewind`` to where all was finite, at most 250 steps
            back, and go on with a tenth of the learning rate, at most 5 times in an epoch.

    Raises:
        ValueError: a number out of range, or an unknown optimizer, schedule or precision; in a fit of several processes, what
            they cannot share.
    """

    takes_weights: ClassVar[bool] = True
    takes_processes: ClassVar[bool] = True
    length: ClassVar[str | None] = "epochs"
    follows: ClassVar[bool] = True

    objective: Objective = ELBO()
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    epochs: int = 100
    batch_size: int = 64
    learning_rate: float | None = None
    schedule: Literal["constant", "cosine", "exponential"] = "cosine"
    clip_norm: float | None = None
    skip_norm: float | None = None
    alternate: Literal["steps", "epochs"] | None = None
    encoder_steps: int = 1
    patience: int | None = None
    restore_best: bool = False
    sampling: Sampling | None = None
    only: tuple[str, ...] = ()
    compile: Compile = "auto"
    precision: Precision = "32"
    on_nonfinite: OnNonFinite = "stop"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "objective", objective_of(self.objective))
        require(self.epochs >= 1, "at least 1 epoch", self.epochs)
        require(self.batch_size >= 1, "a batch_size of at least 1", self.batch_size)
        rate = self.learning_rate
        require(rate is None or 0 < rate < math.inf, "a positive learning_rate", rate)
        require(self.optimizer in OPTIMIZERS, f"an optimizer of {', '.join(OPTIMIZERS)}", self.optimizer)
        require(self.schedule in SCHEDULES, f"a schedule of {', '.join(SCHEDULES)}", self.schedule)
        require(self.clip_norm is None or self.clip_norm > 0, "a positive clip_norm", self.clip_norm)
        require(self.skip_norm is None or self.skip_norm > 0, "a positive skip_norm", self.skip_norm)
        require(self.alternate in (None, "steps", "epochs"), "to alternate steps or epochs", self.alternate)
        require(self.alternate != "epochs" or self.epochs >= 2, "at least 2 epochs to alternate", self.epochs)
        require(self.encoder_steps >= 1, "encoder_steps of at least 1", self.encoder_steps)
        if self.encoder_steps > 1:
            require(self.alternate == "steps", "alternate='steps', of which encoder_steps are a part", self.alternate)
        fits = isinstance(self.compile, bool) or self.compile == "auto"  # 1 equals True, and YAML would bring it back as 1
        require(fits, "a compile that is auto, true or false", self.compile)
        if self.compile is True and not self.objective.recordable:
            raise ValueError(f"expected compile='auto' or False for {self.objective}, whose steps are eager, got True")
        require(self.precision in ("32", "bf16", "tf32"), "a precision of 32, bf16 or tf32", self.precision)
        policies = get_args(OnNonFinite)
        require(self.on_nonfinite in policies, f"an on_nonfinite of {', '.join(policies)}", self.on_nonfinite)
        require(self.patience is None or self.patience >= 1, "a patience of at least 1 epoch", self.patience)
        object.__setattr__(self, "only", tuple(self.only))
        half = all(name.partition(".")[0] in ("model", "guide") for name in self.only)
        require(half, "names of parts for only that begin with model or guide, such as model.decoder", self.only)

    @property
    def iterations(self) -> int:
        """The number of epochs."""
        return self.epochs

    @property
    def first_batch(self) -> int:
        """The declared batch size."""
        return self.batch_size

    def steps_per_epoch(self, rows: int) -> int:
        """Batches of so many training data."""
        return math.ceil(rows / self.batch_size)

    def check(self, pair: Pair, data: Data) -> None:
        """Raise ``ValueError`` if these data cannot be fitted so, or ``only`` names what is no part of the pair."""
        self._check(pair, data)
        self._find_parts(pair, data)
        Parts(pair, self.only)

    def trains(self, pair: Pair) -> set[str]:
        """The parameters and buffers of the parts that are trained."""
        return Parts(pair, self.only).tensors

    def run(self, pair: Pair, data: Data, report: Report, checkpointer: AnyCheckpointer = NULL_CHECKPOINTER) -> list[Record]:
        """Fit the pair; a row of history per epoch.

        The columns, in nats per datum: ``objective``, ``elbo``, ``reconstruction`` and ``kl`` are means over the epoch's
        training steps, the first what was climbed, the others the true ELBO and its halves whatever was climbed;
        ``skipped``, with a ``skip_norm``, is the number of steps that were not taken. With ``sampling``, ``objective`` is the
        mean over the rows as they were drawn, ``elbo`` and its halves are those of all training rows after the epoch, and
        ``effective_rows`` is (sum_n w_n)^2 / sum_n w_n^2 of the weights that they were drawn by (Kish 1965);
        ``valid_elbo``, ``valid_reconstruction`` and ``valid_kl`` are those of the validation split after it.

        Raises:
            ValueError: early stopping or the best epoch asked for without validation data, an objective that is not defined for
                the pair, a part that it has not, or nothing to alternate.
            NonFiniteError: the objective, a gradient or a parameter is no longer finite; it has a post-mortem.
        """
        self._check(pair, data)
        self._remark()
        clock = Stopwatch(report, checkpointer.restored.seconds if checkpointer.restored else 0.0)
        self._find_parts(pair, data)
        with training_only(pair, self.only) as parts:
            meet(pair, data, self.batch_size)
            if pair.plain:
                check_rows(pair, data)
            if pair.local and (self.patience or self.restore_best):
                told = f"leave patience and restore_best no validation {pair.score.label}"
                raise ValueError(f"parameters for rows of the training data {told}")
            self._name_ignored(pair)
            start_pair(pair, data.train, self.seed, warm=pair.warm, parts=parts)
            return Training(self.plan(pair), pair, data, clock, checkpointer).run()

    def plan(self, pair: Pair) -> TrainingPlan:
        """What the training of a pair takes from here; a learning rate that is not declared is the model's own."""
        rate = self.learning_rate or pair.model_facts.learning_rate or LEARNING_RATE
        return TrainingPlan(
            objective=self.objective,
            optimizer=self.optimizer,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=float(rate),
            schedule=self.schedule,
            clip_norm=self.clip_norm,
            skip_norm=self.skip_norm,
            alternate=self.alternate,
            encoder_steps=self.encoder_steps,
            patience=self.patience,
            restore_best=self.restore_best,
            compile=self.compile,
            precision=self.precision,
            on_nonfinite=self.on_nonfinite,
            sampling=self.sampling,
            seed=self.seed,
        )

    def _check(self, pair: Pair, data: Data) -> None:
        """Raise ``ValueError`` if these data cannot be fitted so."""
        if len(data.valid) == 0 and (self.patience or self.restore_best):
            raise ValueError("patience and restore_best need validation data: give load_data a `valid` fraction above 0")
        if data.spec.missing and not pair.model_facts.takes_missing:
            raise ValueError(
                "SVI needs complete data: fill missing entries or drop those rows, or fit by EM, which sums them out"
            )
        if data.train.weights is not None and not self.objective.takes_weights:
            raise ValueError(
                f"expected rows without weights for objective={self._climbed}, which is no sum over the data that could count "
                "them by their weights: use ELBO(), BetaELBO() or IWAE(), or load the data without"
            )
        if (count := current().count) > 1 and not self.objective.adds_up:
            raise ValueError(
                f"expected one process for objective={self._climbed}, which is no mean over the rows of a batch that "
                f"could be shared, got {count}: use ELBO() or IWAE(), or start it without torchrun"
            )
        if self.sampling is not None:
            check_sampling(self.sampling, pair, data)
        self._check_rows(pair, data)
        self._check_passes(pair, data)

    @property
    def _climbed(self) -> str:
        """What the objective is called in a message."""
        return self.objective.name or type(self.objective).__name__

    def _check_rows(self, pair: Pair, data: Data) -> None:
        """Raise ``ValueError`` if all batches are too small to normalize anything over their rows."""
        rows, least = min(self.batch_size, len(data.train)), NormalizedMeans.LEAST_ROWS
        if rows < least and any(isinstance(module, NormalizedMeans) for module in pair.guide.modules()):
            raise ValueError(
                f"expected batches of at least {least} rows for a guide with batch_norm_mean, which normalizes over them, got "
                f"{rows}: raise batch_size, or leave batch_norm_mean out"
            )

    def _find_parts(self, pair: Pair, data: Data) -> None:
        """Let plain programs have all their parts, which they make when they first meet a batch, if some are asked for."""
        if self.only and pair.plain:
            with evaluating(pair), seeded(0, data.train.device):
                meet(pair, data, self.batch_size)

    def _remark(self) -> None:
        """Tell what is probably not meant."""
        if self.objective.remark:
            warnings.warn(self.objective.remark, FitWarning, stacklevel=3)
        if self.objective.ramp > self.epochs:
            warnings.warn(
                f"the warm-up of {self.objective.ramp:g} epochs does not end within the {self.epochs} epochs of the fit: "
                "shorten it, or raise epochs",
                FitWarning,
                stacklevel=3,
            )

    def _check_passes(self, pair: Pair, data: Data) -> None:
        """Raise ``ValueError`` if each step would invert a flow for all posteriors that the prior is made of."""
        prior, guide = posterior_prior(pair.model), pair.guide
        if not (isinstance(prior, PosteriorMixture) and isinstance(guide, LatentGuide)):
            return
        draws = min(self.batch_size, len(data.train)) * self.objective.draws
        if (passes := draws * prior.densities * guide.foreign_passes) > MOST_PASSES:
            raise ValueError(
                f"this prior asks each of the {draws} draws of a step for its density under {prior.densities} posteriors of a "
                f"flow, which is inverted for it by {guide.foreign_passes} passes of its networks: {passes:.3g} passes a step, "
                f"at most {MOST_PASSES:.3g} are taken. Use a guide whose density is known everywhere (AmortizedNormal, also "
                "with covariance='full', or AmortizedMixture), or a prior that does not ask it (AutoregressiveFlow); with this "
                "pair fewer components, samples or rows of a batch, or transform='coupling'"
            )

    def _name_ignored(self, pair: Pair) -> None:
        """Remark on baselines that the guide's sites ask for in vain."""
        if pair.baselines and not self.objective.honours_baselines:
            warnings.warn(
                f"infer={{'baseline': ...}} of {', '.join(pair.baselines)} is ignored by {type(self.objective).__name__}: use "
                "objective=pyro.infer.TraceGraph_ELBO(), which honours it, or ELBO(baseline='moving_average')",
                FitWarning,
                stacklevel=3,
            )

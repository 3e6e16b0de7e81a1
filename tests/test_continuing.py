"""Rows that are drawn element after element, through the verb."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import ppl_vae as pv
from ppl_vae.program.base import ModelProgram
from ppl_vae.program.capabilities import Continuing
from ppl_vae.program.lengths import RowLengths
from ppl_vae.types import FitWarning


class CounterProgram(ModelProgram):
    """The next element is one more than the last, and the first one is 1; of tokens the last one is followed by the end."""

    reads = ("x", "length")

    def __init__(self, spec: pv.DataSpec) -> None:
        super().__init__()
        self.size, self.levels = spec.size, spec.levels
        self.weight = nn.Parameter(torch.tensor(0.0))
        self.lengths = RowLengths()

    def forward(self, x: Tensor, length: Tensor) -> None:
        with pv.data_plate(self.size, x):
            each = dist.Normal(self.weight, 1.0).expand(x.shape).mask(pv.sequence_mask(length, x.shape[1]))
            pyro.sample("x", each.to_event(1), obs=x.float())

    def posterior(self, *batch: Tensor) -> Any:
        raise ValueError("no codes")

    def drawn_lengths(self, least: Tensor) -> Tensor:
        return self.lengths.drawn(least)

    def continued(self, given: Tensor, length: Tensor, steps: int, *, end: int | None = None) -> Tensor:
        last = given.gather(1, (length[:, None] - 1).clamp_min(0)) if given.shape[1] else given.new_zeros(len(given), 1)
        found = torch.where(length[:, None] > 0, last, 0) + torch.arange(1, steps + 1)
        return found if self.levels is None else (found % self.levels).to(given.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counter(pv.Model):
    ragged: ClassVar[bool] = True
    accepts = frozenset({"categorical", "real", "count"})

    def check(self, spec: pv.DataSpec) -> None:
        pass

    def build(self, spec: pv.DataSpec) -> CounterProgram:
        return CounterProgram(spec)

    def story(self) -> str:
        return "counting"


def counter(data: pv.Data) -> pv.Fit:
    return pv.fit(Counter(), data, guide=pv.ExactPosterior(), method=pv.SVI(epochs=1), device="cpu")


def test_texts_end_by_their_token_and_begin_as_is_given() -> None:
    fit = counter(pv.load_data(["aabbccddd"] * 20, tokens="characters"))
    assert isinstance(fit.pair.model, Continuing)
    vocabulary = fit.spec.fields[0].vocabulary
    assert vocabulary == ("<end>", "d", "a", "b", "c")
    assert fit.sample(2) == ["dabc"] * 2
    assert fit.sample(2, given="ab") == ["abc", "abc"]
    assert fit.sample(2, given=["a", "cb"]) == ["abc", "cbc"]
    assert fit.sample(2, given=["a", "cb"], length=[2, 4]) == ["ab", "cbc"]
    numbers = fit.sample(2, given=["a", "cb"], seen=True)
    assert [row.tolist() for row in (numbers[0], numbers[1])] == [[2, 3, 4, 0], [4, 3, 4, 0]]
    for given in ("ax", 3.0, [1.5]):
        with pytest.raises(ValueError, match="expected"):
            fit.sample(1, given=given)
    with pytest.raises(ValueError, match="one beginning for all rows or 3, got 2"):
        fit.sample(3, given=["a", "b"])
    with pytest.raises(ValueError, match="rows longer than what is given of them, got 2 elements given of 2"):
        fit.sample(1, given="ab", length=2)
    with pytest.raises(ValueError, match="leave it out"):
        fit.sample(1, means=True)


def test_rows_that_never_end_are_cut_and_told() -> None:
    fit = counter(pv.load_data(["aabbccddd"] * 20, tokens="characters", end=False))
    assert {len(text) for text in fit.sample(5)} == {9}  # as long as those of the data
    fit = counter(pv.load_data(["a" * 9] * 20, tokens="characters"))
    fit.pair.model.levels = 10**6
    with pytest.warns(FitWarning, match="2 of 2 rows had no end after 40 elements"), pytest.raises(IndexError):
        fit.sample(2)


def test_numbers_come_in_the_units_of_their_source() -> None:
    lengths = [3, 5, 8]
    rows = pv.Ragged.from_list([np.arange(length) * 2.0 + place % 7 for place, length in enumerate(lengths * 20)])
    fit = counter(pv.load_data(rows, scale="standardize", valid=0.0, test=0.0))
    loc, scale = fit.transform.constants
    drawn = fit.sample(40, given=[loc.item(), loc.item() + 3 * scale.item()])
    assert isinstance(drawn, pv.Ragged)
    assert set(drawn.lengths.tolist()) == {3, 5, 8}
    torch.testing.assert_close(drawn[0], (loc + scale * torch.tensor([0, *range(3, 10)])[: len(drawn[0])]).to(drawn.dtype))
    assert drawn.values.tolist() == fit.sample(40, given=[loc.item(), loc.item() + 3 * scale.item()]).values.tolist()
    longer = fit.sample(2, given=[np.zeros(9), np.zeros(1)])
    assert longer.lengths[0] == 10
    with pytest.raises(ValueError, match=r"elements of shape \(\)"):
        fit.sample(2, given=np.zeros((2, 2, 2)))


def test_other_models_have_no_beginning() -> None:
    fit = pv.fit(pv.PPCA(latent_dim=1), torch.randn(30, 3).numpy(), device="cpu")
    for options in ({"given": np.zeros(2)}, {"length": 3}):
        with pytest.raises(ValueError, match="expected a model of rows for a beginning or a length"):
            fit.sample(2, **options)

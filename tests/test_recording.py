"""What functions do to tensors is written down so that it can be done again, to the last bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo.utils  # as torch.func and checkpoints do at their first call, which is none to be recorded
from torch import Tensor, nn

from ppl_vae.program.capture import CaptureError, capture
from ppl_vae.program.recording import being_recorded, recorded

torch.manual_seed(0)
LSTM = nn.LSTM(4, 3, batch_first=True)
ATTENTION = nn.MultiheadAttention(4, 2, batch_first=True)
EMBEDDING = nn.Embedding(10, 4)
OUTSIDE = torch.randn(4)


class _Exponential(torch.autograd.Function):
    """One that brings its own gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * ctx.saved_tensors[0]


def _in_place(w: Tensor, x: Tensor) -> Tensor:
    y = torch.zeros(5, 4)
    y[:2] = (x @ w)[:2]
    y[2:, 1] += 1.0
    return (x @ w).mul(2).add_(y)[:, ::2].clamp_(0)


def _autocast(w: Tensor, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return (x @ w).float() + (x @ w).float()


CASES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "vmap": lambda w, x: torch.vmap(lambda row: (w @ row).sin())(x),
    "a Hessian": lambda w, x: torch.func.hessian(lambda row: ((w @ row) ** 3).sum())(x[0]),
    "a gradient of a gradient": lambda w, x: torch.autograd.grad((w @ x.T).sin().sum(), w, create_graph=True)[0].square(),
    "a checkpoint": lambda w, x: torch.utils.checkpoint.checkpoint(lambda a: (a @ x.T).tanh(), w, use_reentrant=False),
    "a gradient of its own": lambda w, x: _Exponential.apply(w @ x.T),
    "several outputs": lambda w, x: torch.linalg.eigh(w @ w.T)[0] + torch.stack((x @ w).chunk(5)).sort(2)[0].sum(),
    "complex numbers": lambda w, x: torch.fft.rfft(w @ x.T).abs(),
    "a recurrent network": lambda w, x: LSTM((x @ w)[None])[0],
    "attention": lambda w, x: ATTENTION((x @ w)[None], (x @ w)[None], (x @ w)[None])[0],
    "in place": _in_place,
    "autocast": _autocast,
    "numbers of the program": lambda w, x: EMBEDDING(torch.tensor([1, 2, 3, 4, 5])) @ w * torch.tensor(3.0).item(),
    "tensors from elsewhere": lambda w, x: x @ w + OUTSIDE,
    "random numbers": lambda w, x: nn.functional.dropout(torch.randn_like(x) @ w) * torch.randperm(5)[:, None],
    "random numbers by parameters": lambda w, x: torch._standard_gamma((x @ w).exp()),
    "convolutions": lambda w, x: nn.functional.conv2d((x @ w)[None, None], w[None, None, :2, :2]),
}


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # which torch.func imports
@pytest.mark.parametrize("name", CASES)
def test_a_record_does_what_was_done_to_others(name: str) -> None:
    def function(w: Tensor, x: Tensor) -> list[Tensor]:
        assert being_recorded() == recording
        w = w.detach().requires_grad_()
        found = CASES[name](w, x)
        return [found.detach(), *torch.autograd.grad(found.sum(), w)]

    recording = True
    module, constants, _ = recorded(function, [torch.randn(4, 4), torch.randn(5, 4)], {})
    recording = False
    assert not being_recorded()
    w, x = torch.randn(4, 4), torch.randn(5, 4)
    torch.manual_seed(1)
    ours = module(w, x, *constants)
    torch.manual_seed(1)
    for one, other in zip(ours, function(w, x), strict=True):
        assert torch.equal(one, other)


def test_tensors_from_elsewhere_are_arguments_and_changed_where_the_function_changes_them() -> None:
    count, offset = torch.zeros(()), torch.ones(3)

    def function(x: Tensor) -> list[Tensor]:
        count.add_(1)
        return [x + offset * count, offset]

    module, constants, _ = recorded(function, [torch.zeros(3)], {})
    count.zero_()
    offset.fill_(5.0)
    first, same = module(torch.zeros(3), *constants)
    assert (first.tolist(), same.tolist(), count.item()) == ([5.0] * 3, [5.0] * 3, 1.0)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: [x * float(x.sum())],
        lambda x: [x if x.sum() > 0 else -x],
        lambda x: [x * torch.tensor(2.0).add_(x.sum()).item()],
        lambda x: [x * float(torch.randn(()))],
        lambda x: [x if torch.tensor(0.0).uniform_() < 0.5 else -x],
        lambda x: [x * torch.tensor(0.0).bernoulli_(0.5).item()],
    ],
)
def test_a_record_cannot_decide_by_values(function: Callable[[Tensor], list[Tensor]]) -> None:
    with pytest.raises(RuntimeError, match="asks for the value of a tensor"):
        recorded(function, [torch.ones(3)], {})
    assert not being_recorded()


def test_an_operation_is_recorded_as_another_where_that_knows_how() -> None:
    aten = torch.ops.aten

    def twice(x: Tensor) -> Any:
        return x + x if x.dim() else NotImplemented

    module, *_ = recorded(lambda x: [x.exp(), x[0].exp()], [torch.ones(3)], {aten.exp.default: twice})
    targets = [node.target for node in module.graph.nodes]
    assert (targets.count(aten.exp.default), targets.count(aten.add.Tensor)) == (1, 1)
    assert [value.tolist() for value in module(torch.zeros(3))] == [[0.0] * 3, 1.0]


def test_memory_that_tensors_from_elsewhere_share_is_put_back() -> None:
    whole = torch.zeros(3)
    first, second = whole[:2], whole[1:]

    def function(x: Tensor) -> list[Tensor]:
        first.add_(1)
        second.add_(1)
        return [x + whole]

    module, constants, changed = recorded(function, [torch.zeros(3)], {})
    assert whole.tolist() == [0.0] * 3
    assert len(changed) >= 2
    assert module(torch.zeros(3), *constants)[0].tolist() == [1.0, 2.0, 1.0] == whole.tolist()


def test_outputs_share_no_memory() -> None:
    def function(x: Tensor) -> list[Tensor]:
        y = x + 1
        return [x, y, y, y.view(3, 1), OUTSIDE]

    module, constants, _ = recorded(function, [torch.zeros(3)], {})
    x = torch.ones(3)
    found = [x, OUTSIDE, *module(x, *constants)]
    assert len({value.data_ptr() for value in found}) == len(found)


@pytest.mark.parametrize(
    "leave", [lambda x: x.numpy(), lambda x: x.tolist(), np.asarray, np.from_dlpack, lambda x: copy.deepcopy(x)]
)
def test_numbers_that_leave_torch_are_refused(leave: Callable[[Tensor], Any]) -> None:
    function = lambda x: [x + torch.as_tensor(leave(x * 2)).sum()]  # noqa: E731
    with pytest.raises(CaptureError, match=r"it takes numbers out of torch|it makes a tensor where torch does not see it"):
        capture(function, [], [torch.ones(3)])
    known = torch.ones(3)
    capture(lambda x: [x + float(np.asarray(known).sum()) + known.tolist()[0]], [], [torch.ones(3)])

"""Networks: shapes of every size, what each option computes, and what is refused."""

from __future__ import annotations

import dataclasses
import importlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import ppl_vae as pv
from ppl_vae.evaluate import elbo_terms
from ppl_vae.nn.conditioned import conditioned
from ppl_vae.nn.conv import _stage
from ppl_vae.nn.cost import multiplications
from ppl_vae.nn.curves import Affine, Composed, RationalQuadraticSpline
from ppl_vae.nn.layers import BatchNorm
from ppl_vae.nn.masked import MaskedNetwork, MaskedTransform, autoregressive, coupling

SIZES = [(1, 1), (1, 5), (3, 4), (7, 7), (8, 8), (9, 32), (28, 28), (31, 17), (32, 32)]
CURVES = {
    "affine": Affine(),
    "spline": RationalQuadraticSpline(bins=4, bound=2.0),
    "composed": Composed(Affine(), RationalQuadraticSpline(bins=3, bound=3.0)),
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# --- the perceptron -------------------------------------------------------------------------------------------------------


def test_the_plain_perceptron_has_the_parameters_and_the_random_stream_that_it_always_had() -> None:
    torch.manual_seed(0)
    found = pv.MLP(hidden=(20, 10)).build((1, 3, 4), (2, 5))
    torch.manual_seed(0)
    expected = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 10))
    state = found.state_dict()
    assert list(state) == [f"layers.{name}" for name in expected.state_dict()]
    assert all(torch.equal(state[f"layers.{name}"], value) for name, value in expected.state_dict().items())
    x = torch.randn(7, 12)
    torch.testing.assert_close(found(x.reshape(7, 1, 3, 4)), expected(x).reshape(7, 2, 5), rtol=0, atol=0)


def test_a_gated_layer_is_one_affine_map_times_the_sigmoid_of_another() -> None:
    network = pv.MLP(hidden=(5,), activation="gated").build((3,), (2,))
    first, last = (layer for layer in network.modules() if linear(layer))
    x = torch.randn(4, 3)
    a, b = first(x).chunk(2, -1)
    torch.testing.assert_close(network(x), last(a * b.sigmoid()))


def linear(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear)


def test_a_residual_layer_adds_its_input_where_the_widths_agree() -> None:
    network = pv.MLP(hidden=(4, 4, 3), residual=True).build((4,), (2,))
    layers = [layer for layer in network.modules() if linear(layer)]
    x = torch.randn(6, 4)
    h = x + layers[0](x).relu()
    h = h + layers[1](h).relu()
    torch.testing.assert_close(network(x), layers[3](layers[2](h).relu()))


def test_layer_norm_does_not_see_the_scale_of_its_input() -> None:
    network = pv.MLP(hidden=(6,), norm="layer").build((3,), (2,)).double()
    with torch.no_grad():
        next(layer for layer in network.modules() if linear(layer)).bias.zero_()
    x = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(network(1000 * x), network(100 * x), rtol=1e-4, atol=1e-4)


def test_dropout_is_random_in_training_only() -> None:
    network = pv.MLP(hidden=(50,), dropout=0.5).build((3,), (2,))
    x = torch.randn(5, 3)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


@pytest.mark.parametrize("images", [False, True])
def test_batch_norm_is_torchs_own(images: bool) -> None:
    ours, theirs = BatchNorm(3, images=images), nn.BatchNorm2d(3) if images else nn.BatchNorm1d(3)
    x = 4 * torch.randn(6, 3, 5, 2) + 1 if images else 4 * torch.randn(6, 3) + 1
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours(2 * x), theirs(2 * x))
    ours.eval()
    theirs.eval()
    torch.testing.assert_close(ours(x), theirs(x))


def test_batch_norm_takes_a_single_datum_by_the_running_moments() -> None:
    layer = BatchNorm(3, images=False)
    x = torch.randn(3)
    torch.testing.assert_close(layer(x), x, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer.mean, torch.zeros(3))
    assert layer(torch.randn(4, 2, 3)).shape == (4, 2, 3)
    assert layer.mean.abs().min() > 0


# --- convolutions ---------------------------------------------------------------------------------------------------------

CONVOLUTIONS = {
    "default": pv.Conv(),
    "one": pv.Conv(channels=(3,)),
    "odd": pv.Conv(channels=(3, 4, 5), kernel=3),
    "wide": pv.Conv(channels=(3, 4), kernel=5, stride=3, blocks=1),
    "gated": pv.Conv(channels=(3, 4), kernel=2, blocks=2, activation="gated", norm="layer"),
}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("conv", CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
def test_images_of_any_size_become_codes_and_images_again(conv: pv.Conv, size: tuple[int, int]) -> None:
    encoder = conv.build((3, *size), (2, 5))
    decoder = conv.build((5,), (2, 3, *size))
    for batch in ((), (4,), (2, 3)):
        code = encoder(torch.randn(*batch, 3, *size))
        assert code.shape == (*batch, 2, 5)
        assert decoder(code[..., 0, :]).shape == (*batch, 2, 3, *size)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_spatial_code_is_a_stack_of_small_images(size: tuple[int, int]) -> None:
    conv = pv.Conv(channels=(3, 4), spatial=True)
    small = [-(-length // 4) for length in size]
    latent_dim = 2 * math.prod(small)
    encoder, decoder = conv.build((1, *size), (2, latent_dim)), conv.build((latent_dim,), (1, 1, *size))
    assert encoder(torch.randn(5, 1, *size)).shape == (5, 2, latent_dim)
    assert decoder(torch.randn(5, latent_dim)).shape == (5, 1, 1, *size)
    assert not any(linear(layer) for network in (encoder, decoder) for layer in network.modules())


def test_a_spatial_code_sees_its_own_part_of_the_image() -> None:
    conv = pv.Conv(channels=(3, 4), spatial=True, activation="elu")
    encoder, decoder = conv.build((1, 32, 32), (2, 3 * 64)), conv.build((3 * 64,), (1, 1, 32, 32))
    x = torch.randn(1, 1, 32, 32, requires_grad=True)
    maps = encoder(x).reshape(2, 3, 8, 8)
    (gradient,) = torch.autograd.grad(maps[:, :, 0, 0].sum(), x)
    seen = gradient[0, 0].abs() > 0
    assert seen[:4, :4].all()
    assert not seen[12:].any()
    assert not seen[:, 12:].any()
    z = torch.zeros(3, 8, 8)
    z[:, 7, 7] = 1
    change = (decoder(z.flatten()) - decoder(torch.zeros(3 * 64)))[0, 0].abs() > 0
    assert change[-4:, -4:].any()
    assert not change[:20].any()
    assert not change[:, :20].any()


@pytest.mark.parametrize("stride", [2, 3, 4])
@pytest.mark.parametrize("kernel", [2, 3, 4, 5, 7])
def test_a_transposed_stage_gives_the_size_back(kernel: int, stride: int) -> None:
    if kernel < stride:
        return
    for length in range(1, 40):
        stage = _stage((length, 2 * length), kernel, stride)
        down = nn.Conv2d(1, 1, kernel, stride, stage.padding)(torch.zeros(1, 1, length, 2 * length))
        assert down.shape[2:] == stage.small
        up = nn.ConvTranspose2d(1, 1, kernel, stride, stage.padding, stage.extra)(down)
        assert up.shape[2:] == (length, 2 * length)


def test_without_nonlinearities_the_decoder_is_the_mirror_of_the_encoder() -> None:
    """A stage and its transpose with the same weights are adjoint maps: <conv(x), y> = <x, conv_transpose(y)>."""
    for length in (7, 8):
        stage = _stage((length, length), 4, 2)
        down = nn.Conv2d(2, 3, 4, 2, stage.padding, bias=False).double()
        up = nn.ConvTranspose2d(3, 2, 4, 2, stage.padding, stage.extra, bias=False).double()
        up.weight = down.weight
        x, y = torch.randn(1, 2, length, length).double(), torch.randn(1, 3, *stage.small).double()
        torch.testing.assert_close((down(x) * y).sum(), (x * up(y)).sum())


def test_images_without_a_channel_axis_and_several_parameters_an_element() -> None:
    conv = pv.Conv(channels=(3,))
    assert conv.build((6, 5), (2, 4))(torch.zeros(7, 6, 5)).shape == (7, 2, 4)
    assert conv.build((4,), (3, 6, 5))(torch.zeros(7, 4)).shape == (7, 3, 6, 5)


@pytest.mark.parametrize("network", [pv.Conv(channels=(4, 8), blocks=1), pv.UNet(channels=(8, 8))], ids=["conv", "unet"])
def test_weights_of_convolutions_lie_channels_last_also_after_loading_others(network: pv.Network) -> None:
    ours, theirs = network.build((1, 8, 8), (2, 1, 8, 8)), network.build((1, 8, 8), (2, 1, 8, 8))
    ours.load_state_dict({name: value.contiguous() for name, value in theirs.state_dict().items()})
    images = [weight for weight in ours.parameters() if weight.dim() == 4]
    assert images
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in images)
    plain = network.build((1, 8, 8), (2, 1, 8, 8)).to(memory_format=torch.contiguous_format)
    plain.load_state_dict(theirs.state_dict())
    x = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(ours(x), plain(x))


def test_a_convolutional_vae_is_fitted_by_the_same_verbs() -> None:
    fitted = pv.fit(
        pv.VAE(latent_dim=4, decoder=pv.Conv(channels=(8, 16))),
        "digits",
        guide=pv.AmortizedNormal(encoder=pv.Conv(channels=(8, 16))),
        method=pv.SVI(epochs=2, learning_rate=1e-2),
    )
    assert fitted.history[1]["elbo"] > fitted.history[0]["elbo"] + 1
    assert fitted.sample(3).shape == (3, 1, 8, 8)


@pytest.mark.parametrize(
    ("in_shape", "out_shape", "message"),
    [
        ((784,), (2, 8), r"Conv reads or writes images \(channels, height, width\).*use MLP"),
        ((8,), (1, 784), "use MLP"),
    ],
)
def test_flat_data_are_refused_with_the_remedy(in_shape: tuple, out_shape: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pv.Conv().build(in_shape, out_shape)


def test_a_spatial_code_of_another_size_is_refused_with_the_remedy() -> None:
    for in_shape, out_shape in (((1, 28, 28), (2, 20)), ((20,), (1, 1, 28, 28))):
        with pytest.raises(ValueError, match=r"maps of 7 x 7: expected a multiple of 49.*latent_dim"):
            pv.Conv(spatial=True).build(in_shape, out_shape)


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: pv.MLP(activation="sine"), "an activation of relu, .*gated, got 'sine'"),
        (lambda: pv.MLP(norm="group"), "a norm of none, layer, batch, got 'group'"),
        (lambda: pv.MLP(dropout=1.0), r"a dropout in \[0, 1\), got 1.0"),
        (lambda: pv.Conv(channels=()), "at least one stage"),
        (lambda: pv.Conv(channels=(0,)), "channels of at least 1"),
        (lambda: pv.Conv(stride=1), "a stride of at least 2"),
        (lambda: pv.Conv(kernel=1), "a kernel of at least the stride 2, got 1"),
        (lambda: pv.Conv(blocks=-1), "a number of blocks"),
        (lambda: pv.Conv(norm="group"), "a norm of"),
    ],
)
def test_bad_declarations(declare, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        declare()


# --- a network of one's own -----------------------------------------------------------------------------------------------

OWN = """
import dataclasses
import ppl_vae as pv
from ppl_vae.nn import Batched
from torch import nn

class Ordinary(nn.Module):
    def __init__(self, inputs, outputs, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, outputs))

    def forward(self, x):
        assert x.dim() == 4
        return self.layers(x)

@dataclasses.dataclass(frozen=True, kw_only=True)
class Mine(pv.Network):
    width: int = 9

    def build(self, in_shape, out_shape):
        return Batched(Ordinary(12, 6, self.width), in_shape, out_shape)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    (tmp_path / "own_network.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("own_network")
    sys.modules.pop("own_network", None)


def test_any_module_stands_wherever_a_network_does(own, tmp_path: Path) -> None:
    guide = pv.AmortizedNormal(encoder=own.Mine(width=5))
    data = pv.load_data((torch.rand(40, 1, 3, 4) < 0.5).float().numpy())
    fitted = pv.fit(pv.VAE(latent_dim=3), data, guide=guide, method=pv.SVI(epochs=1))
    assert fitted.encode(data.test).shape[1] == 3
    saved = pv.save_run(fitted, data, tmp_path / "run")
    with pytest.raises(ValueError, match="name its module in `trust`"):
        pv.load_run(saved)
    assert pv.load_run(saved, trust=["own_network"]).guide == guide


# --- what they cost -------------------------------------------------------------------------------------------------------


def test_multiplications_are_weights_times_positions() -> None:
    network = pv.Conv().build((1, 28, 28), (2, 8))
    first, second, last = (value.numel() for name, value in network.named_parameters() if "weight" in name)
    assert multiplications(network, torch.zeros(3, 1, 28, 28)) == 3 * (first * 14**2 + second * 7**2 + last)
    assert multiplications(pv.Linear().build((4,), (6,)), torch.zeros(4)) == 24


# --- what flows are made of -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES.keys())
def test_a_curve_increases_with_the_slope_that_it_tells_and_comes_back(curve) -> None:
    theta = torch.randn(200, curve.size, dtype=torch.float64)
    x = 3 * torch.randn(200, dtype=torch.float64)
    x.requires_grad_()
    y, log_slope = curve.forward(x, theta)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(log_slope, slope.log())
    torch.testing.assert_close(curve.inverse(y, theta), x)


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES.keys())
def test_a_curve_without_parameters_is_the_identity(curve) -> None:
    x = torch.linspace(-4, 4, 41, dtype=torch.float64)
    y, log_slope = curve.forward(x, torch.zeros(41, curve.size, dtype=torch.float64))
    torch.testing.assert_close(y, x)
    torch.testing.assert_close(log_slope, torch.zeros_like(x), atol=1e-12, rtol=0)


@pytest.mark.parametrize("levels", [autoregressive(4, 0), autoregressive(4, 1), coupling(4, 0), coupling(4, 1)], ids=str)
def test_a_masked_network_sees_lower_levels_and_the_context_alone(levels: Tensor) -> None:
    network = MaskedNetwork(levels, 2, (80, 60), 3)
    x, context = torch.randn(4), torch.randn(2)
    theta = torch.autograd.functional.jacobian(lambda x: network(x, context), x).abs().sum(1)
    assert not theta[levels[:, None] <= levels].any()
    assert theta[levels[:, None] > levels].all()
    assert torch.autograd.functional.jacobian(lambda c: network(x, c), context).any()


def test_a_masked_map_is_inverted_level_by_level() -> None:
    transform = MaskedTransform(MaskedNetwork(autoregressive(4, 1), 0, (11,), Affine.size).double(), Affine())
    with torch.no_grad():
        transform.network.last.weight.mul_(100)
    x = torch.randn(5, 4, dtype=torch.float64)
    y = transform(x)
    torch.testing.assert_close(transform._inverse(y), x)
    jacobian = torch.autograd.functional.jacobian(transform._call, x[0])
    torch.testing.assert_close(transform.log_abs_det_jacobian(x, y)[0], torch.linalg.slogdet(jacobian).logabsdet)


# --- training and evaluation ----------------------------------------------------------------------------------------------


def test_a_batch_normalized_pair_is_evaluated_datum_by_datum() -> None:
    network = pv.MLP(hidden=(9,), norm="batch")
    pair = pv.build(
        pv.VAE(latent_dim=2, decoder=dataclasses.replace(network)),
        pv.AmortizedNormal(encoder=network),
        pv.DataSpec(event_shape=(5,), kind="binary", size=40),
    )
    x = (torch.rand(40, 5) < 0.5).float()
    pv.SVI(epochs=3, batch_size=10).run(pair, pv.load_data(x.numpy(), valid=0.0, test=0.0), lambda row: None)
    pair.eval()
    with torch.no_grad():
        kl = elbo_terms(pair, (x,)).kl
        torch.testing.assert_close(torch.cat([elbo_terms(pair, (part,)).kl for part in x.split(8)]), kl)


# --- the U-Net ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_a_u_net_gives_images_of_any_size_back(size: tuple[int, int]) -> None:
    network = pv.UNet(channels=(4, 5, 3)).build((2, *size), (1, 3, *size))
    assert network(torch.zeros(2, *size)).shape == (1, 3, *size)
    assert network(torch.zeros(2, 3, 2, *size)).shape == (2, 3, 1, 3, *size)


def test_a_u_net_is_a_decoder_of_codes_on_a_smaller_grid_and_of_vectors() -> None:
    for shape in ((6, 3, 4), (5,)):
        found = pv.UNet(channels=(4, 5)).build(shape, (1, 1, 9, 11))(torch.zeros(2, *shape))
        assert found.shape == (2, 1, 1, 9, 11)
    with pytest.raises(ValueError, match=r"UNet reads or writes images .* use MLP"):
        pv.UNet().build((3,), (2, 4))


def test_a_denoiser_starts_at_zero_and_is_told_the_time_by_every_block() -> None:
    network = conditioned(pv.UNet(channels=(4, 8), attention=True), (1, 5, 6), 3, (1, 5, 6)).double()
    x, c = torch.randn(4, 1, 5, 6, dtype=torch.float64), torch.randn(2, 1, 3, dtype=torch.float64)
    assert network(x, c).shape == (2, 4, 1, 5, 6)
    assert not network(x, c).any()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    found = network(x, c)
    torch.testing.assert_close(found[1, 2], network(x[2], c[1, 0]))
    assert not torch.allclose(found[0], found[1])
    found.square().sum().backward()
    assert all(parameter.grad.any() for parameter in network.parameters())


@pytest.mark.parametrize(
    "network",
    [pv.Linear(), pv.MLP(hidden=(7, 5)), pv.MLP(hidden=(6, 6), residual=True), pv.MLP(hidden=(7,), activation="gated")],
    ids=["Linear", "MLP", "residual", "gated"],
)
def test_two_arguments_of_other_leading_dimensions_are_broadcast(network: pv.Network) -> None:
    torch.manual_seed(0)
    built = conditioned(network, (1, 3), 2, (2, 4)).double()
    x, c = torch.randn(5, 1, 3).double(), torch.randn(6, 1, 2).double()
    together = built(x.expand(6, 5, 1, 3), c.expand(6, 5, 2))
    torch.testing.assert_close(built(x, c), together, rtol=0, atol=1e-12)
    assert built(x, c).shape == (6, 5, 2, 4)

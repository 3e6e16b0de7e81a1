"""The likelihood of strokes, files of drawings, and their pictures."""

from __future__ import annotations

import functools
import io
import math
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

import ppl_vae as pv
from ppl_vae import plots
from ppl_vae.data.objects import read_rows
from ppl_vae.data.pens import thinned
from ppl_vae.likelihoods.stroke_distribution import StrokeDistribution
from ppl_vae.plots.drawings import lines_of
from ppl_vae.runs.pictures import run_pictures


def features(*batch: int, components: int = 4, scale: float = 1.0, seed: int = 0) -> Tensor:
    """Random features in float64."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*batch, 2 * components + 1, 3, generator=generator, dtype=torch.float64)


def distribution(h: Tensor, **options: float) -> StrokeDistribution:
    return pv.Strokes(components=(h.shape[-2] - 1) // 2, **options).build((3,))(h)


def points(*batch: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    offset = torch.randn(*batch, 2, generator=generator, dtype=torch.float64)
    return torch.cat([offset, torch.randint(0, 3, (*batch, 1), generator=generator).double()], -1)


# --- the likelihood -------------------------------------------------------------------------------------------------------


def test_points_have_the_density_of_a_mixture_of_normals_times_the_pen() -> None:
    p, x = distribution(features(5, 7)), points(5, 7)
    covariance = torch.diag_embed(p.scale.mT.square())
    covariance[..., 0, 1] = covariance[..., 1, 0] = p.corr * p.scale.prod(-2)
    mixture = MixtureSameFamily(Categorical(logits=p.logits), MultivariateNormal(p.loc.mT, covariance))
    expected = mixture.log_prob(x[..., :2]) + Categorical(logits=p.pen).log_prob(x[..., 2])
    torch.testing.assert_close(p.log_prob(x), expected, rtol=1e-10, atol=1e-10)
    assert p.expand((3, 5, 7)).log_prob(x).shape == (3, 5, 7)
    torch.testing.assert_close(p.mean[..., :2], mixture.mean)


def test_the_density_sums_to_one_over_a_grid_and_the_pen() -> None:
    p = distribution(features(2, components=3), floor=0.3, value=0.6)
    axis = torch.linspace(-12, 12, 601, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis, torch.arange(3.0, dtype=torch.float64))[:, None]
    total = p.log_prob(grid).exp().sum(0) * (axis[1] - axis[0]) ** 2
    torch.testing.assert_close(total, torch.ones(2, dtype=torch.float64), rtol=1e-6, atol=0)


def test_without_correlation_it_factorizes() -> None:
    h, x = features(6, components=1), points(6)
    h.flatten(-2)[:, 5] = 0  # its raw correlation
    p = distribution(h)
    apart = torch.distributions.Normal(p.loc[..., 0], p.scale[..., 0]).log_prob(x[:, :2]).sum(-1)
    torch.testing.assert_close(p.log_prob(x), apart + p.pen.gather(-1, x[:, 2:].long()).squeeze(-1))


def test_draws_have_the_moments_and_a_temperature_narrows_them() -> None:
    p = distribution(features(components=2))
    torch.manual_seed(0)
    for temperature in (1.0, 0.3):
        q = p.sharpened(temperature)
        draws = q.sample((200_000,))
        assert pv.Strokes(components=2).build((3,))(features(components=2)).support.check(draws).all()
        torch.testing.assert_close(draws[:, :2].mean(0), q.mean[:2], atol=2e-2, rtol=0)
        weights, cross = q.logits.exp(), q.loc[0] * q.loc[1] + q.corr * q.scale.prod(0)
        expected = (weights * cross).sum() - q.mean[0] * q.mean[1]
        assert np.cov(draws[:, 0], draws[:, 1])[0, 1] == pytest.approx(expected.item(), abs=3e-2)
        torch.testing.assert_close(
            torch.bincount(draws[:, 2].long(), minlength=3) / 2e5, q.pen.exp().float(), atol=5e-3, rtol=0
        )
    torch.testing.assert_close(p.sharpened(0.25).scale, p.scale / 2)
    torch.testing.assert_close(p.sharpened(0.25).pen, p.pen)
    torch.testing.assert_close(p.sharpened(2.0).pen, (p.pen / 2).log_softmax(-1))
    with pytest.raises(ValueError, match="temperature > 0, got 0"):
        p.sharpened(0.0)
    with pytest.raises(ValueError, match="top_p of 1 of points"):
        p.sharpened(1.0, 0.9)


def test_strokes_without_a_temperature_are_as_long_as_their_medians() -> None:
    p = distribution(torch.zeros(1, 3, 3, dtype=torch.float64))
    stays, ends = 0.8, 0.3  # a stroke goes on with 0.8, a lift is the last with 0.3: medians of 4 points and of 2 strokes
    p.pen = torch.tensor([[stays, (1 - stays) * (1 - ends), (1 - stays) * ends]], dtype=torch.float64).log()
    waited, found = None, []
    for _ in range(8):
        point, waited = p.paced(waited)
        found.append(int(point[0, 2]))
    assert found == [0, 0, 0, 1, 0, 0, 0, 2]


@pytest.mark.parametrize("size", [0.0, 1e2, 1e4])
def test_extreme_features_have_finite_densities_and_gradients(size: float) -> None:
    for seed in range(5):
        h = features(20, scale=size, seed=seed).float().requires_grad_()
        loss = distribution(h).log_prob(size * points(20).float() * torch.tensor([1.0, 1.0, 0.0])).sum()
        (gradient,) = torch.autograd.grad(loss, h)
        assert math.isfinite(loss.item())
        assert gradient.isfinite().all()


def test_padding_is_exactly_nothing_and_gets_no_gradient() -> None:
    h = features(3, 5).requires_grad_()
    mask = pv.sequence_mask(torch.tensor([5, 2, 0]), 5)
    found = distribution(h).mask(mask).log_prob(points(3, 5))
    assert not found[~mask].any()
    (gradient,) = torch.autograd.grad(found.sum(), h)
    assert not gradient[~mask].any()
    assert gradient[mask].any(-1).any(-1).all()


def test_a_declaration_says_what_is_wrong() -> None:
    for options, told in (
        ({"components": 0}, "at least 1 component"),
        ({"floor": 0.5}, "between 0 and value"),
        ({"floor": 0.0}, "floor"),
    ):
        with pytest.raises(ValueError, match=told):
            pv.Strokes(**options)
    with pytest.raises(ValueError, match=r"points \(dx, dy, pen\), got elements of shape \(2,\)"):
        pv.Strokes().build((2,))
    with pytest.raises(ValueError, match=r"declare rows .* as drawings"):
        pv.Strokes().check(pv.DataSpec(event_shape=(3,), kind="real", size=1))
    with pytest.raises(ValueError, match="the first of them row 1"):
        pv.Strokes().check_values(torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.0, 3.0]]))
    assert pv.Strokes.from_yaml(pv.Strokes(components=3).to_yaml()) == pv.Strokes(components=3)


# --- files of drawings ----------------------------------------------------------------------------------------------------


def drawing(*rows: tuple[int, int, int]) -> np.ndarray:
    return np.array(rows, np.int16)


DRAWINGS = [
    drawing((0, 0, 0), (3, -4, 1), (1, 2, 0), (5, 5, 1)),
    drawing((7, 1, 1)),
    drawing((-2, 9, 0), (4, 4, 0), (0, -1, 1)),
]


def whole(source: Any, **options: Any) -> pv.Data:
    return pv.load_data(source, valid=0.0, test=0.0, **options)


def test_drawings_are_scaled_by_the_deviation_of_their_offsets_and_end_with_their_last_point() -> None:
    data = whole(pv.Ragged.from_list(DRAWINGS), kind="strokes")
    s = np.concatenate(DRAWINGS)[:, :2].std()
    assert (data.spec.kind, data.spec.columns, data.spec.ragged) == ("strokes", ("dx", "dy", "pen"), True)
    assert data.train.raw.dtype == torch.int16
    x, length = next(data.train[:1].read(("x", "length"), 1))
    torch.testing.assert_close(
        x[0], torch.tensor([[0, 0, 0], [3 / s, -4 / s, 1], [1 / s, 2 / s, 0], [5 / s, 5 / s, 2]]).float()
    )
    assert data.train.transform.log_jacobian == pytest.approx(-2 * math.log(s))
    assert length.tolist() == [4]
    assert data.train.transform.inverse(x)[0].tolist()[3] == pytest.approx([5, 5, 2])
    again = whole(data.train.raw, kind="strokes")  # whose ends are told already
    assert again.train.raw.values.equal(data.train.raw.values)
    assert whole(data.train.raw, kind="strokes", scale="none").train.transform.log_jacobian == 0


def bow(x: Tensor, length: Tensor, *, size: int) -> None:
    """One distribution for all points, learned."""
    h = pyro.param("h", lambda: torch.zeros(5, 3))
    mask = pv.sequence_mask(length, x.shape[1])
    with pv.data_plate(size, x):
        pyro.sample("x", pv.Strokes(components=2).build((3,))(h).expand(x.shape[:2]).mask(mask).to_event(1), obs=x)


def test_numbers_are_in_the_units_of_the_source() -> None:
    """Drawings a hundred times as large have densities 2 T ln 100 lower."""
    found = []
    for factor in (1, 100):
        rows = [points * np.array([factor, factor, 1], np.int16) for points in DRAWINGS]
        data = whole(pv.Ragged.from_list(rows), kind="strokes")
        fit = pv.fit(functools.partial(bow, size=3), data, guide=lambda x, length: None, method=pv.SVI(epochs=1), device="cpu")
        numbers = fit.evaluate(data.train)
        assert fit.evaluate(pv.Ragged.from_list(rows))["elbo"] == pytest.approx(numbers["elbo"])
        found.append(numbers)
    T = 8 / 3
    assert found[0]["tokens"] == pytest.approx(T)
    assert found[0]["elbo"] - found[1]["elbo"] == pytest.approx(2 * T * math.log(100), rel=1e-5)
    assert found[0]["elbo_per_token"] - found[1]["elbo_per_token"] == pytest.approx(2 * math.log(100), rel=1e-5)


def objects(rows: list[Any]) -> np.ndarray:
    found = np.empty(len(rows), dtype=object)
    found[:] = rows
    return found


def member(pickled: bytes, rows: int) -> bytes:
    """An ``.npy`` file of pickled objects."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (rows,)})
    return file.getvalue() + pickled


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_published_files_of_objects_are_read_without_unpickling(
    tmp_path: Path, protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {name: objects(DRAWINGS[:size]) for name, size in (("train", 3), ("valid", 2), ("test", 1))}
    pickled = {name: member(pickle.dumps(rows, protocol=protocol), len(rows)) for name, rows in parts.items()}
    file = archive(tmp_path / "sheep.npz", **pickled)
    monkeypatch.setattr(pickle, "loads", None)
    monkeypatch.setattr(pickle, "Unpickler", None)
    data = pv.load_data(file)
    assert [len(part) for part in (data.train, data.valid, data.test)] == [3, 2, 1]
    assert data.spec.kind == "strokes"
    for found, given in zip(map(data.train.raw.__getitem__, range(3)), DRAWINGS, strict=True):
        assert found[:, :2].tolist() == given[:, :2].tolist()


def test_files_of_python_2_are_read(tmp_path: Path) -> None:
    """Whose bytes are texts: SHORT_BINSTRING."""
    dtype = b"cnumpy\ndtype\n(%sK\x00K\x01tR(K\x03U\x01%sNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    called = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    array = called + b"(K\x01(%st" + dtype + b"\x89%stb"
    points = array % (b"K\x01K\x03", b"U\x02i2", b"<", b"U\x06" + drawing((7, 255, 1)).tobytes())
    rows = array % (b"K\x02", b"U\x02O8", b"|", b"(" + points + points + b"l")
    data = whole(archive(tmp_path / "cat.npz", train=member(b"\x80\x02" + rows + b".", 2)), kind="strokes")
    assert [row.tolist() for row in (data.train.raw[0], data.train.raw[1])] == [[[7, 255, 2]]] * 2


class Evil:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit",)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([Evil()], r"it calls \w+\.exec, which is not done"),
        ([{"a": 1}], "EMPTY_DICT, which no array of numbers needs"),
        (["text"], r"row 0 \(from 0\): expected an array of numbers, got str"),
        ([np.array(["text"])], "a dtype that is none of such"),
        ([np.ones(2), objects([np.ones(1)])], "row 1"),
        ([np.ones((2, 3)), np.ones((2, 4))], "rows .* of one shape"),
    ],
)
def test_other_objects_are_refused(tmp_path: Path, rows: list[Any], told: str) -> None:
    file = archive(tmp_path / "a.npz", train=member(pickle.dumps(objects(rows), protocol=2), len(rows)))
    with pytest.raises(ValueError, match=told):
        whole(file)
    content = member(pickle.dumps(objects(DRAWINGS), protocol=2), 3)
    for damaged in (content[:-40], content[:-1] + b"R.", member(b"", 3), member(pickle.dumps(objects(DRAWINGS)), 4)):
        with pytest.raises(ValueError, match="pickled objects"):
            whole(archive(tmp_path / "b.npz", train=damaged))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_damaged_objects_are_read_or_refused(protocol: int) -> None:
    rng = np.random.default_rng(protocol)
    whole_file = np.frombuffer(pickle.dumps(objects(DRAWINGS), protocol=protocol), np.uint8)
    refused = 0
    for _ in range(300):
        content = whole_file.copy()
        content[rng.integers(0, len(content), 3)] = rng.integers(0, 256, 3)
        try:
            assert len(read_rows(io.BytesIO(content.tobytes()), (3,), "x")) == 3
        except ValueError as error:
            refused += str(error).startswith("x")
    assert refused > 200


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([DRAWINGS[0], drawing((1, 1, 1), (2, 2, 0))], r"1 that never end, first row 1 \(from 0\)"),
        ([DRAWINGS[0], DRAWINGS[1][:0], DRAWINGS[2]], r"at least one point, got none in row 1 \(from 0\)"),
        ([DRAWINGS[0], drawing((1, 1, 3), (2, 2, 1))], r"got 3 in row 1 \(from 0\)"),
        ([DRAWINGS[0], DRAWINGS[1], drawing((1, 1, 2), (2, 2, 1))], r"got 2 in row 2 \(from 0\)"),
        ([np.ones((2, 2))], "of different lengths of .dx, dy, pen., got data of shape"),
        ([DRAWINGS[0], np.array([[1.0, np.nan, 0], [0, 0, 1]])], r"NaN in 1 entries of 1 rows, first in row 1 \(from 0\)"),
    ],
)
def test_bad_drawings_are_refused_with_their_row(rows: list[Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        whole(pv.Ragged.from_list(rows), kind="strokes")
    with pytest.raises(ValueError, match="got unit, dequantize or binarize"):
        whole(pv.Ragged.from_list(DRAWINGS), kind="strokes", dequantize=True)
    with pytest.raises(ValueError, match="expected drawings, rows of different lengths"):
        whole(np.ones((4, 3)), kind="strokes")


# --- models of drawings ---------------------------------------------------------------------------------------------------


SMALL = {"network": pv.LSTM(hidden=6), "likelihood": pv.Strokes(components=2)}


@pytest.fixture(scope="module")
def data() -> pv.Data:
    rng = np.random.default_rng(0)
    rows = [rng.integers(-9, 10, (int(size), 3)) for size in rng.integers(2, 9, 40)]
    for row in rows:
        row[:, 2] = rng.random(len(row)) < 0.3
        row[-1, 2] = 1
    return pv.load_data(pv.Ragged.from_list(rows), kind="strokes", valid=0.0, test=0.2)


@pytest.fixture(scope="module")
def alone(data: pv.Data) -> pv.Fit:
    return pv.fit(pv.SequenceModel(**SMALL), data, method=pv.SVI(epochs=4, batch_size=16), device="cpu")


@pytest.fixture(scope="module")
def coded(data: pv.Data) -> pv.Fit:
    model = pv.VAE(latent_dim=2, decoder=SMALL["network"], likelihood=SMALL["likelihood"])
    guide = pv.AmortizedNormal(encoder=pv.LSTM(hidden=5, bidirectional=True))
    return pv.fit(model, data, guide=guide, method=pv.SVI(epochs=2, batch_size=16), device="cpu")


def test_a_drawing_has_the_product_of_its_points_conditionals(data: pv.Data, alone: pv.Fit) -> None:
    program = alone.pair.model
    x, length = next(data.test.of_one_length().read(("x", "length"), len(data.test)))
    found = program.log_prob(x, length)
    for place in range(3):
        total, (h, state) = 0.0, program.rows.network.start(None, 1)
        for point in x[place : place + 1, : length[place]].unbind(1):
            total += program.rows.likelihood(h).log_prob(point).item()
            h, state = program.rows.network.step(point, state)
        assert found[place].item() == pytest.approx(total, rel=1e-5)
    longer = torch.cat([x, torch.ones_like(x)], 1)
    torch.testing.assert_close(program.log_prob(longer, length), found)
    scaled = found.mean().item() - 2 * length.float().mean().item() * math.log(data.train.transform.scale[0].item())
    assert alone.evaluate(data.test)["elbo"] == pytest.approx(scaled, rel=1e-5)


def test_drawings_are_drawn_to_their_end_and_go_on_where_one_was_begun(data: pv.Data, alone: pv.Fit, coded: pv.Fit) -> None:
    begun = data.test.raw[0][:1]
    for fit in (alone, coded):
        drawn = fit.sample(20, length=200)
        rows = [drawn[place] for place in range(20)]
        assert all((row[:-1, 2] < 2).all() and row[-1, 2] == 2 for row in rows)
        assert fit.evaluate(drawn)["n"] == 20  # whole drawings, as data are
        gone_on = fit.sample(3, given=begun, length=200)
        torch.testing.assert_close(torch.stack([gone_on[place][0] for place in range(3)]), begun.float().expand(3, 3))
        assert min(map(len, (gone_on[place] for place in range(3)))) > 1
    with pytest.raises(ValueError, match="begin with points whose pen is 0 or 1"):
        alone.sample(1, given=data.test.raw[0])


def test_runs_of_drawings_have_their_pictures(data: pv.Data, alone: pv.Fit, coded: pv.Fit) -> None:
    assert {"data", "samples", "completions"} <= {name for name, _ in run_pictures(alone, data)}
    names = dict(run_pictures(coded, data))
    assert {"data", "samples", "reconstructions", "interpolations", "completions", "latent"} <= names.keys()
    temperatures = [label.get_text() for label in names["reconstructions"].axes[0].get_yticklabels()]
    assert temperatures == ["data", "temperature 0.2", "temperature 0.5", "temperature 1"]


def test_points_are_left_out_of_training_alone() -> None:
    rng = np.random.default_rng(0)
    each = [np.concatenate([rng.integers(-9, 9, (n, 2)), rng.random((n, 1)) < 0.2], 1) for n in rng.integers(3, 30, 40)]
    for drawing in each:
        drawing[-1, 2] = 1
    data = pv.load_data(pv.Ragged.from_list(each), kind="strokes", drop_points=0.5)
    raw, torn = data.train.raw, thinned(data.train.raw, 0.5, torch.Generator().manual_seed(0))
    assert torn.total < 0.8 * raw.total
    for row in range(len(raw)):
        places, left = ([tuple(p) for p in part[row][:, :2].cumsum(0).tolist()] for part in (raw, torn))
        assert set(left) <= set(places)
        starts = [(place, pen) for place, pen in zip(places, raw[row][:, 2].tolist(), strict=True) if pen]
        assert [(place, pen) for place, pen in zip(left, torn[row][:, 2].tolist(), strict=True) if pen] == starts
        assert left[0] == places[0]

    def points(part: pv.Split) -> int:
        steps = part.steps(8, generator=torch.Generator().manual_seed(0), reads=("x", "length"))
        return sum(int(length[rows].sum()) for (_, length), rows in steps)

    assert points(data.train) < raw.total
    assert points(data.valid) == data.valid.raw.total
    assert sum(int(length.sum()) for _, length in data.train.read(("x", "length"), 8)) == raw.total
    with pytest.raises(ValueError, match="drawings for drop_points"):
        pv.load_data(np.ones((9, 2)), drop_points=0.5)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.float16])
def test_offsets_past_points_left_out_are_longer_than_their_dtype_holds(dtype: type) -> None:
    most = int(np.finfo(dtype).max if dtype == np.float16 else np.iinfo(dtype).max)
    each = [np.array([[most, 0, 0]] * 9 + [[most, 0, 1]], dtype) for _ in range(3)]
    data = pv.load_data(pv.Ragged.from_list(each), kind="strokes", drop_points=0.5, valid=0.0, test=0.0)
    torn = thinned(data.train.raw, 1.0, torch.Generator().manual_seed(0))
    assert torn.lengths.tolist() == [2, 2, 2]
    assert torn[1].tolist() == [[most, 0, 0], [9 * most, 0, 2]]
    found = data.train.transform(torn[1])  # what a step sees
    torch.testing.assert_close(found[1], torch.tensor([9.0 * most, 0.0, 2.0]) / data.train.transform.scale)


@pytest.mark.parametrize("part", ["models", "guides"])
def test_the_declaration_of_sketch_rnn(part: str) -> None:
    file = Path(__file__).parents[1] / part / "sketch_rnn.yaml"
    found = (pv.Model if part == "models" else pv.Guide).from_yaml(file)
    expected = {
        "models": pv.VAE(latent_dim=128, decoder=pv.LSTM(hidden=512), likelihood=pv.Strokes(components=20)),
        "guides": pv.AmortizedNormal(encoder=pv.LSTM(hidden=256, bidirectional=True)),
    }
    assert found == expected[part]


# --- pictures -------------------------------------------------------------------------------------------------------------


def test_strokes_are_lines_from_one_lift_of_the_pen_to_the_next() -> None:
    lines = lines_of(DRAWINGS[0])
    assert [line.tolist() for line, _ in lines] == [[[0, 0], [3, -4]], [[4, -2], [9, 3]]]
    known = [(line.tolist(), told) for line, told in lines_of(DRAWINGS[2], known=2)]
    assert known == [([[-2, 9], [2, 13]], True), ([[2, 13], [2, 12]], False)]
    assert [len(line) for line, _ in lines_of(DRAWINGS[2][:2])] == [2]  # one that was not ended


def test_drawings_are_figures_and_files(tmp_path: Path) -> None:
    rows = pv.Ragged.from_list(DRAWINGS)
    for name in ("a.png", "a.svg"):
        plots.save(plots.drawings(rows, title="three"), tmp_path / name)
    assert "<svg" in (tmp_path / "a.svg").read_text()
    text = plots.svg(rows, columns=2, size=10)
    assert text.count("<polyline") == 4
    places = [float(place) for points in re.findall(r'points="([^"]*)"', text) for place in re.split("[ ,]", points)]
    assert 0 < min(places) < max(places) < 20
    table = plots.drawings_table([DRAWINGS, rows], ["data", "draws"], known=[1, 1, 1])
    assert len(table.axes[0].collections) == 4
    for wrong in (
        lambda: plots.drawings([]),
        lambda: plots.svg([[1, 2]]),
        lambda: plots.drawings_table([DRAWINGS, DRAWINGS[:1]]),
    ):
        with pytest.raises(ValueError, match="expected"):
            wrong()


def test_what_is_next_of_rows_that_are_no_texts_is_a_file() -> None:
    from ppl_vae.cli.fit import _drawn

    drawing = np.array([[0, 0, 0], [1, 1, 0], [1, 0, 1]], dtype=np.float32)
    drawings = pv.load_data(pv.Ragged.from_list([drawing] * 6), kind="strokes", valid=0.0, test=0.0)
    numbers = pv.load_data(pv.Ragged.from_list([np.ones(3), np.zeros(2)] * 4), valid=0.0, test=0.0)
    assert (_drawn(drawings.spec), _drawn(numbers.spec)) == ("--n 3 --out new.svg", "--n 3 --out new.npz")
    assert _drawn(pv.load_data([["a", 0.5], ["b", 1.5]] * 9).spec) == "--out new.csv"

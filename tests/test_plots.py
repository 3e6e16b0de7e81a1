import math
import sys

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from ppl_vae import plots

NAN = math.nan
HISTORY = [
    {"epoch": e, "objective": -100.0 - e, "elbo": -100.0 - e, "reconstruction": -90.0, "kl": 10.0 + e, "seconds": 1.0}
    for e in range(4)
]

TRACKED = [{**row, "valid_elbo": -100.0, "valid_iwae_50": -95.0, "valid_kl_per_dimension": [1.0, 2.0]} for row in HISTORY]

# every picture of the library at a tiny size
PICTURES = {
    "grey": lambda: plots.grid(torch.rand(5, 1, 4, 3), kind="unit_interval", title="five"),
    "one pixel": lambda: plots.grid(torch.zeros(1, 1, 1), kind="real"),
    "rgb": lambda: plots.grid(torch.randn(5, 3, 4, 4), kind="real"),
    "bool": lambda: plots.grid(torch.rand(5, 4, 4) > 0.5, kind="binary"),
    "scatter": lambda: plots.grid(torch.randn(7, 2), kind="real", title="plane"),
    "table": lambda: plots.grid(torch.randn(7, 5, requires_grad=True), kind="real", title="table"),
    "other": lambda: plots.grid(torch.ones(7, 2, 3, 4, 5, dtype=torch.int64), kind="count"),
    "scalar": lambda: plots.grid(torch.randn(7), kind="real"),
    "all missing": lambda: plots.grid(torch.full((3, 4), NAN), kind="real"),
    "compare images": lambda: plots.comparison(torch.rand(13, 3, 4, 4), torch.rand(13, 3, 4, 4), kind="real"),
    "compare planes": lambda: plots.comparison(torch.randn(7, 2), torch.randn(7, 2), kind="real"),
    "compare tables": lambda: plots.comparison(torch.randn(7, 5), torch.randn(7, 5), kind="real"),
    "curve": lambda: plots.learning_curve(HISTORY),
    "one epoch": lambda: plots.learning_curve(HISTORY[:1]),
    "diverged": lambda: plots.learning_curve([{"epoch": 0, "elbo": NAN}, {"epoch": 1, "elbo": -math.inf}]),
    "manifold": lambda: plots.manifold(torch.rand(6, 6, 1, 4, 4), kind="unit_interval"),
    "lattice": lambda: plots.lattice({"exact": torch.rand(3, 4), "mean field": torch.rand(3, 4)}, limits=(-1, 1)),
    "chain": lambda: plots.lattice({"exact": torch.rand(5)}),
    "manifold of one": lambda: plots.manifold(torch.rand(1, 1, 4, 4), kind="binary"),
    "codes": lambda: plots.latent_scatter(torch.randn(9, 2), torch.arange(9) % 3, ("a", "b", "c")),
    "many classes": lambda: plots.latent_scatter(torch.randn(30, 2), torch.arange(30)),
    "projected": lambda: plots.latent_scatter(torch.randn(9, 5)),
    "collapsed": lambda: plots.latent_scatter(torch.ones(9, 5)),
    "aggregate": lambda: plots.aggregate(torch.randn(9, 5), torch.randn(20, 5)),
    "aggregate of one": lambda: plots.aggregate(torch.zeros(9, 1), torch.zeros(20, 1)),
    "tracked": lambda: plots.tracked(TRACKED),
    "runs": lambda: plots.runs(
        [{"run": "a", "elbo": -1.0, "elbo_se": 0.1}, {"run": "b", "iwae": -2.0}], [HISTORY, HISTORY[:1]]
    ),
}


def settings():
    return {key: mpl.rcParams[key] for key in mpl.rcParams if key != "backend"}  # only pyplot resolves the backend


def pixels(figure):
    return figure.axes[0].images[0].get_array()


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_a_picture_is_drawn_and_saved_without_pyplot_or_global_settings(draw, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it raises
    before = settings()
    figure = draw()
    path = tmp_path / "new" / "picture.png"
    plots.save(figure, path)
    assert type(figure) is Figure
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in path.parent.iterdir()] == ["picture.png"]
    assert settings() == before


def test_pyplot_keeps_no_figure():
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    PICTURES["grey"]()
    assert pyplot.get_fignums() == before


def test_mosaic_is_exact():
    x = torch.tensor([[[0.0, 0.25]], [[0.5, 0.75]], [[1.0, NAN]]])  # three images of 1 x 2
    shown = pixels(plots.grid(x, columns=2, kind="unit_interval"))
    expected = [[0, 0.25, NAN, 0.5, 0.75], [NAN] * 5, [1, NAN, NAN, NAN, NAN]]
    np.testing.assert_array_equal(np.ma.filled(shown, NAN), expected)


def test_rgb_mosaic_is_exact_and_its_gutters_are_transparent():
    red, blue = torch.tensor([1.0, 0, 0]).view(3, 1, 1), torch.tensor([0, 0, 2.0]).view(3, 1, 1)
    shown = pixels(plots.grid(torch.stack((red, blue)), columns=2, kind="unit_interval"))
    np.testing.assert_array_equal(shown, [[[1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 1]]])


@pytest.mark.parametrize(("n", "columns", "shape"), [(1, None, (4, 3)), (5, None, (9, 11)), (5, 5, (4, 19)), (2, 9, (4, 7))])
def test_mosaic_shape(n, columns, shape):
    assert pixels(plots.grid(torch.rand(n, 4, 3), columns=columns, kind="binary")).shape == shape


def test_colour_scale_is_fixed_for_the_unit_interval_and_robust_otherwise():
    x = torch.linspace(0, 1, 1000)
    x[-1] = 1e6
    table = x.reshape(100, 10)
    assert plots.grid(table.clamp(max=1), kind="binary").axes[0].images[0].get_clim() == (0, 1)
    assert plots.grid(table, kind="real").axes[0].images[0].get_clim() == pytest.approx((0.01, 0.99), abs=0.002)
    sparse = torch.zeros(1000, 2)
    sparse[0, 0] = 3
    assert plots.grid(sparse.reshape(-1, 4), kind="count").axes[0].images[0].get_clim() == (0, 3)


def test_comparison_alternates_rows_of_images():
    data = torch.arange(12.0).reshape(12, 1, 1) / 100
    shown = np.ma.filled(pixels(plots.comparison(data, data + 0.5, kind="unit_interval")), NAN)
    assert shown.shape == (7, 19)
    np.testing.assert_allclose(shown[0, ::2], np.arange(10) / 100)
    np.testing.assert_allclose(shown[2, ::2], np.arange(10) / 100 + 0.5)
    np.testing.assert_allclose(shown[6, :4:2], [0.6, 0.61])
    assert np.isnan(shown[4:, 4:]).all()


def test_comparison_of_tables_shares_the_scale_of_the_data():
    data = torch.rand(20, 5)
    left, right, _ = plots.comparison(data, 100 * data, kind="real").axes
    assert left.images[0].get_clim() == right.images[0].get_clim()
    assert left.images[0].get_clim()[1] <= 1


def test_comparison_of_planes_names_both():
    legend = plots.comparison(torch.randn(5, 2), torch.randn(5, 2), kind="real").axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["data", "reconstruction"]


def labels(ax):
    return [line.get_label() for line in ax.lines]


def test_learning_curve_draws_what_is_known():
    elbo, reconstruction, kl = plots.learning_curve(HISTORY).axes
    assert labels(elbo) == labels(reconstruction) == labels(kl) == ["training"]
    assert {ax.get_ylabel() for ax in (elbo, reconstruction, kl)} == {"nats per datum"}
    rows = [{**row, "objective": row["elbo"] + 5, "valid_elbo": -99.0 if row["epoch"] % 2 else None} for row in HISTORY]
    elbo, *_ = plots.learning_curve(rows).axes
    assert labels(elbo) == ["training", "validation", "objective"]
    np.testing.assert_array_equal(elbo.lines[1].get_xdata(), [1, 3])
    assert len(plots.learning_curve([{"epoch": 0, "elbo": -1.0}]).axes) == 1


def test_first_epochs_do_not_squash_the_learning_curve():
    rows = [{"epoch": e, "elbo": -1e6 if e < 2 else -100.0 + e} for e in range(20)]
    low, high = plots.learning_curve(rows).axes[0].get_ylim()
    assert -100 < low < -98 + 1e-6 < -81 < high < -80


def test_quantile_grid_has_cells_of_equal_probability():
    z = plots.quantile_grid(4)
    assert z.shape == (4, 4, 2)
    assert z.dtype == torch.get_default_dtype()
    expected = torch.tensor([0.125, 0.375, 0.625, 0.875])
    torch.testing.assert_close(torch.special.ndtr(z[0, :, 0]), expected)
    torch.testing.assert_close(torch.special.ndtr(z[:, 0, 1]), expected.flip(0))  # the top row has the largest z2


def test_manifold_puts_row_zero_on_top_and_reads_as_the_grid():
    z = plots.quantile_grid(3)
    figure = plots.manifold(z[..., 1, None, None], kind="real")  # images of one pixel that show z2
    np.testing.assert_allclose(pixels(figure)[::2, 0], z[:, 0, 1])
    ax = figure.axes[0]
    assert ax.get_yticklabels()[0].get_text() == "0.97"
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # row 0 is drawn at the top


def test_latent_scatter_colours_by_class():
    z, y = torch.randn(4, 2), torch.tensor([0, 1, 1, 2])
    ax = plots.latent_scatter(z, y, ("cat", "dog", "owl")).axes[0]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["cat", "dog", "owl"]
    colours = ax.collections[0].get_facecolor()
    assert (colours[1] == colours[2]).all()
    assert len(np.unique(colours, axis=0)) == 3
    assert plots.latent_scatter(z).axes[0].get_legend() is None
    ax = plots.latent_scatter(z, torch.tensor([0, -1, 1, -1]), ("cat", "dog")).axes[0]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["cat", "dog", "no label"]
    assert len(np.unique(ax.collections[0].get_facecolor()[[1, 3]], axis=0)) == 1


def test_latent_scatter_projects_on_the_leading_axes():
    torch.manual_seed(0)
    z = torch.randn(500, 3) * torch.tensor([1.0, 10.0, 0.1])
    ax = plots.latent_scatter(z).axes[0]
    codes = torch.from_numpy(np.asarray(ax.collections[0].get_offsets()))
    variances = z.double().var(0)
    torch.testing.assert_close(codes.var(0), variances[[1, 0]], rtol=1e-2, atol=0)
    assert f"{variances[1] / variances.sum():.0%} of the variance" in ax.get_xlabel()
    assert "3 dimensions" in ax.get_title()


WRONG = {
    "kind": (lambda: plots.grid(torch.rand(2, 3), kind="colour"), "expected one of binary"),
    "no data": (lambda: plots.grid(torch.rand(0, 3), kind="real"), "at least one datum"),
    "columns": (lambda: plots.grid(torch.rand(2, 3, 3), columns=0, kind="real"), "columns"),
    "8-bit": (lambda: plots.grid(torch.full((2, 3, 3), 255, dtype=torch.uint8), kind="unit_interval"), "divide"),
    "shapes": (lambda: plots.comparison(torch.rand(2, 3), torch.rand(2, 4), kind="real"), "one shape"),
    "no epoch": (lambda: plots.learning_curve([]), "at least one row"),
    "no elbo": (lambda: plots.learning_curve([{"epoch": 1, "elbo": None}]), "'elbo'"),
    "not square": (lambda: plots.manifold(torch.rand(2, 3, 4, 4), kind="real"), r"\(n, n, \*event\)"),
    "not images": (lambda: plots.manifold(torch.rand(2, 2, 4), kind="real"), r"\(n, n, \*event\)"),
    "no square": (lambda: plots.manifold(torch.rand(4), kind="real"), r"\(n, n, \*event\)"),
    "n": (lambda: plots.quantile_grid(0), "positive"),
    "one dimension": (lambda: plots.latent_scatter(torch.rand(5, 1)), "K >= 2"),
    "not finite": (lambda: plots.latent_scatter(torch.full((5, 2), NAN)), "finite"),
    "length of y": (lambda: plots.latent_scatter(torch.rand(5, 2), torch.zeros(4, dtype=torch.int64)), "class number per code"),
    "float y": (lambda: plots.latent_scatter(torch.rand(5, 2), torch.zeros(5)), "integer"),
    "classes": (lambda: plots.latent_scatter(torch.rand(5, 2), torch.arange(5), ("a", "b")), "0 to 1"),
}


@pytest.mark.parametrize(("call", "message"), WRONG.values(), ids=WRONG)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_save_refuses_other_formats_and_leaves_nothing_of_a_failure(tmp_path, monkeypatch):
    figure = PICTURES["grey"]()
    with pytest.raises(ValueError, match=r"\.png"):
        plots.save(figure, tmp_path / "picture.pdf")
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")

    def fail(file, **_):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plots.save(figure, path)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("picture.png", b"old")]


def test_the_aggregate_posterior_shows_the_dimensions_that_vary_most():
    codes = torch.randn(50, 6) * torch.tensor([0.1, 3.0, 1.0, 0.5, 2.0, 0.2])
    figure = plots.aggregate(codes, torch.randn(50, 6), most=3)
    assert [ax.get_xlabel() for ax in figure.axes] == ["$z_{2}$", "$z_{5}$", "$z_{3}$"]


def test_tracked_numbers_have_a_panel_each():
    figure = plots.tracked(TRACKED)
    assert [ax.get_title() for ax in figure.axes] == ["iwae 50", "kl per dimension"]
    assert [len(ax.lines) for ax in figure.axes] == [1, 2]
    assert plots.tracked(HISTORY) is None
    with pytest.raises(ValueError, match="at least one row"):
        plots.tracked([])


def test_codes_and_prior_must_fit():
    with pytest.raises(ValueError, match="expected codes"):
        plots.aggregate(torch.randn(9, 5), torch.randn(9, 4))
    with pytest.raises(ValueError, match="finite codes"):
        plots.aggregate(torch.full((9, 5), NAN), torch.randn(9, 5))


def test_columns_of_a_table_are_called_by_their_names() -> None:
    names = ("age", "cost in $ and $", "a name that is much too long to be read")
    figure = plots.grid(torch.randn(5, 3), kind="real", names=names)
    figure.canvas.draw()
    told = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert told == ["age", r"cost in \$ and \$", "a name that is much…"]
    both = plots.comparison(torch.randn(5, 3), torch.randn(5, 3), kind="real", names=names)
    both.canvas.draw()
    assert [[label.get_text() for label in ax.get_xticklabels()] for ax in both.axes[:2]] == [told, told]
    assert plots.grid(torch.randn(5, 2), kind="real", names=names[:2]).axes[0].get_ylabel() == r"cost in \$ and \$"
    many = plots.grid(torch.randn(5, 50), kind="real", names=tuple(map(str, range(50))))
    assert many.axes[0].get_xlabel() == "feature"


def test_a_strip_of_images_has_no_empty_band() -> None:
    figure = plots.walks(torch.rand(1, 8, 1, 8, 8), [""], kind="unit_interval", title="from 0 to 7")
    figure.canvas.draw()
    (box,) = [ax.get_window_extent() for ax in figure.axes]
    assert box.height > 0.3 * figure.bbox.height


def test_states_have_a_colour_each_and_rows_whole_numbers() -> None:
    figure = plots.series([torch.tensor([0, 2, 1]), torch.tensor([1])] * 3, discrete=True)
    figure.canvas.draw()
    panel, bar = figure.axes
    assert panel.images[0].get_cmap().N == 3
    assert [label.get_text() for label in bar.get_yticklabels()] == ["0", "1", "2"]
    assert all(float(label.get_text().replace("\N{MINUS SIGN}", "-")).is_integer() for label in panel.get_yticklabels())

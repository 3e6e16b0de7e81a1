"""Tables whose columns differ in kind and unit, from their natural units to numbers in them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ppl_vae as pv
from ppl_vae.types import FitWarning

REAL = slice(3, 7)


def birds(rows: int = 333) -> np.ndarray:
    """Two categories, one binary column, four measurements near 40, 17, 200 and 4200."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, rows)
    place, sex = np.where(rng.random(rows) < 0.7, kind, rng.integers(0, 3, rows)), rng.integers(0, 2, rows)
    centre = np.array([[38.8, 18.3, 190, 3700], [48.8, 18.4, 196, 3733], [47.5, 15, 217, 5076]])[kind]
    measured = centre + sex[:, None] * [3, 1.2, 6, 500] + rng.normal(size=(rows, 4)) * [2.5, 1, 6, 250]
    return np.column_stack([kind, place, sex, measured])


def table(scale: Any = "per_feature", **changes: Any) -> pv.MixedTable:
    return pv.MixedTable(
        groups=(
            pv.ColumnGroup(columns=(0, 1), likelihood=pv.Categorical(levels=3)),
            pv.ColumnGroup(columns=(2,), likelihood=pv.Bernoulli()),
            pv.ColumnGroup(likelihood=pv.Gaussian(scale=scale, **changes)),
        )
    )


MODEL = pv.VAE(latent_dim=3, likelihood=table(), decoder=pv.MLP(hidden=(20,)))
GUIDE = pv.AmortizedNormal(encoder=pv.MLP(hidden=(20,)))


def fitted(x: Any, epochs: int = 40, model: pv.Model = MODEL) -> pv.Fit:
    return pv.fit(model, x, guide=GUIDE, method=pv.SVI(epochs=epochs, learning_rate=5e-3))


def test_a_table_in_natural_units_is_fitted_as_one_that_was_scaled_by_hand() -> None:
    x = birds()
    fit = fitted(x)
    assert fit.without_latents is not None
    assert fit.history[-1]["elbo"] > fit.without_latents + 1  # as it stands it ended below -10^5
    assert fit.history[0]["elbo"] > fit.without_latents - 8  # for it starts at the data
    data = MODEL.resolve(pv.load_data(x))
    loc, scale = data.train.transform.loc.numpy(), data.train.transform.scale.numpy()
    scaled = pv.load_data(((x - loc) / scale).astype(np.float32))
    by_hand = fitted(scaled)
    constant = -math.log(np.prod(scale, dtype=float))
    assert fit.history[-1]["elbo"] == pytest.approx(by_hand.history[-1]["elbo"] + constant, abs=0.05)
    assert fit.evaluate(data.test)["elbo"] == pytest.approx(by_hand.evaluate(scaled.test)["elbo"] + constant, abs=0.05)


@pytest.mark.parametrize("whole", [False, True])
def test_only_columns_with_a_location_and_a_learned_scale_are_scaled(whole: bool) -> None:
    x = birds().round() if whole else birds()  # whole numbers would be counts
    data = MODEL.resolve(pv.load_data(x))
    seen = data.train.transformed()
    assert data.spec.kind == "real"
    torch.testing.assert_close(seen[:, :3], data.train.x[:, :3].float())
    torch.testing.assert_close(seen[:, REAL].mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen[:, REAL].std(0, correction=0), torch.ones(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(data.train.transform.inverse(seen), data.train.x.float(), rtol=1e-5, atol=1e-3)
    fixed = dataclasses.replace(MODEL, likelihood=table("fixed"))
    for other in (MODEL.resolve(pv.load_data(x, scale="none")), fixed.resolve(pv.load_data(x))):
        torch.testing.assert_close(other.train.transformed(), other.train.x.float())
    assert MODEL.resolve(data) is data


def test_a_constant_column_and_missing_entries() -> None:
    x = birds(80)
    x[:, 4] = 17.0
    x[::5, 5] = math.nan
    groups = tuple(dataclasses.replace(group, likelihood=pv.Masked(likelihood=group.likelihood)) for group in table().groups)
    model = dataclasses.replace(MODEL, likelihood=pv.MixedTable(groups=groups))
    fit = fitted(pv.load_data(x, missing="ignore"), epochs=2, model=model)
    assert math.isfinite(fit.history[-1]["elbo"])
    assert fit.transform.scale[4] == 1.0
    assert fit.transform.scale[5].item() == pytest.approx(np.nanstd(x[:, 5]), rel=0.2)


def test_a_count_of_thousands_starts_at_its_mean() -> None:
    x = birds(200)
    x[:, 6] = x[:, 6].round()
    counted = pv.ColumnGroup(columns=(6,), likelihood=pv.Poisson())
    model = dataclasses.replace(MODEL, likelihood=pv.MixedTable(groups=(*table().groups[:2], counted, table().groups[2])))
    fit = fitted(x, epochs=2, model=model)
    assert fit.without_latents is not None
    assert fit.transform.scale[6] == 1.0
    assert fit.history[-1]["elbo"] > fit.without_latents - 40


def test_levels_that_no_row_has_are_told() -> None:
    wide = pv.MixedTable(groups=(pv.ColumnGroup(columns=(0, 1), likelihood=pv.Categorical()), *table().groups[1:]))
    with pytest.warns(FitWarning, match="columns 0, 1 hold codes up to 2, and Categorical has 256 levels.*: declare levels=3"):
        fitted(birds(60), epochs=1, model=dataclasses.replace(MODEL, likelihood=wide))


def test_a_saved_run_sees_new_rows_under_the_transform_of_the_fit(tmp_path: Path) -> None:
    x = birds(120)
    data = pv.load_data(x)
    fit = fitted(data, epochs=2)
    pv.save_run(fit, data, tmp_path / "run")
    loaded = pv.load_run(tmp_path / "run")
    split = MODEL.resolve(data).test
    assert loaded.evaluate(split) == pytest.approx(fit.evaluate(split))
    assert loaded.transform.loc.tolist() == fit.transform.loc.tolist()


def test_standardize_is_about_the_real_columns_and_keeps_the_digits_of_those_far_from_zero() -> None:
    near = birds()
    far = near + np.array([0, 0, 0, 1.7e9, 0, 0, 0])
    x = MODEL.resolve(pv.load_data(near)).train.transformed()
    for values in (near, far):
        data = MODEL.resolve(pv.load_data(values, scale="standardize"))
        torch.testing.assert_close(data.train.transformed(), x, rtol=0, atol=1e-4)
        assert MODEL.resolve(data).train.transform.loc.tolist() == data.train.transform.loc.tolist()
    elbos = [fitted(pv.load_data(values, scale="standardize"), epochs=3).history[-1]["elbo"] for values in (near, far)]
    assert elbos[0] == pytest.approx(elbos[1], abs=1e-3)
    assert elbos[0] == pytest.approx(fitted(near, epochs=3).history[-1]["elbo"], abs=1e-3)
    fixed = dataclasses.replace(MODEL, likelihood=table("fixed"))
    torch.testing.assert_close(fixed.resolve(pv.load_data(near, scale="standardize")).train.transformed(), x, rtol=0, atol=1e-4)

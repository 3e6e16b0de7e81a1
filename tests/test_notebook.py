"""What notebooks show: well-formed, escaped, and nothing from elsewhere."""

from __future__ import annotations

import dataclasses
import math
from xml.etree import ElementTree as Tree

import pytest
import torch

import ppl_vae as pv
from ppl_vae.notebook import curves, table


def texts(page: str) -> str:
    """The text of well-formed markup, which asks nothing of the network."""
    assert not [part for part in ("http", "src=", "url(", "<script", "<style") if part in page]
    return " ".join(part.strip() for part in Tree.fromstring(page).itertext())


@pytest.mark.parametrize(
    "declared", [pv.VAE(latent_dim=3), pv.EM(), pv.DataSource(source="<b>&.csv"), pv.GaussianMixture(components=7)]
)
def test_a_declaration_shows_its_story_and_fields(declared: pv.Declaration) -> None:
    told = texts(declared._repr_html_())
    assert told.startswith(type(declared).__name__)
    for field in dataclasses.fields(declared):
        assert f"{field.name} {getattr(declared, field.name)}" in told
    if str(declared) != repr(declared):
        assert str(declared) in told


def test_a_fit_shows_its_numbers_and_its_curve() -> None:
    x = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    fit = pv.fit(pv.FactorAnalysis(latent_dim=1), x, method=pv.EM(max_iterations=5, tolerance=0.0), device="cpu")
    page = fit._repr_html_()
    told = texts(page)
    assert str(fit.model) in told
    assert f"elbo {fit.history[-1]['elbo']:.4g}" in told
    assert f"without latent variables {fit.without_latents:.4g}" in told
    assert f"{fit.spec.size} training rows of shape (3,), real" in told
    (line,) = Tree.fromstring(page).iter("polyline")
    heights = [float(point.split(",")[1]) for point in line.attrib["points"].split()]
    assert len(heights) == len(fit.history)
    assert heights == sorted(heights, reverse=True)  # EM climbs, and the picture's axis points downwards


def test_a_fit_without_a_history_is_shown_too() -> None:
    fit = pv.fit(pv.PPCA(latent_dim=1), torch.eye(5), method=pv.ClosedForm(), device="cpu")
    assert "<svg" not in fit._repr_html_()
    assert "training rows" in texts(dataclasses.replace(fit, history=[])._repr_html_())


def test_what_is_not_finite_has_no_place_in_a_curve() -> None:
    page = curves({"a <": [math.nan, 1.0, 2.0, math.inf], "b": [0.0]})
    assert page.count("polyline") == 1
    assert "1 to 2" in texts(f"<div>{page}</div>")


def test_everything_is_escaped() -> None:
    assert texts(f"<div>{table({'<i>': '<b>&'}, '<u>')}</div>") == "<u> <i> <b>&"

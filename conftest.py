"""Names that the doctests of the package use, and the options of the tests."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where and in which precision the laws are tested."""
    parser.addoption("--device", default="cpu", help="where the laws are tested: cpu, cuda")
    parser.addoption("--dtype", default="float32", help="in which precision: float32, float64")


@pytest.fixture(autouse=True)
def _names(doctest_namespace: dict) -> None:
    import torch

    import ppl_vae

    doctest_namespace |= {"torch": torch, **{name: getattr(ppl_vae, name) for name in ppl_vae.__all__}}

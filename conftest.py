"""Names that the doctests of the package use, and the options of the tests."""

from __future__ import annotations

import os

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where and in which precision the laws are tested."""
    parser.addoption("--device", default="cpu", help="where the laws are tested: cpu, cuda")
    parser.addoption("--dtype", default="float32", help="in which precision: float32, float64")


def pytest_configure(config: pytest.Config) -> None:
    """Beside other workers a test computes on one core, as do the programs that it starts."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True)
def _names(doctest_namespace: dict) -> None:
    import torch

    import ppl_vae

    doctest_namespace |= {"torch": torch, **{name: getattr(ppl_vae, name) for name in ppl_vae.__all__}}

"""Every likelihood, guide and prior by hand: a table of small losses for each family."""

from __future__ import annotations

from benchmarks.peers.catalogue.entry import Entry
from benchmarks.peers.catalogue.guides import GUIDES
from benchmarks.peers.catalogue.guides import WITHOUT as OTHER_GUIDES
from benchmarks.peers.catalogue.likelihoods import LIKELIHOODS
from benchmarks.peers.catalogue.likelihoods import WITHOUT as OTHER_LIKELIHOODS
from benchmarks.peers.catalogue.priors import PRIORS
from benchmarks.peers.catalogue.priors import WITHOUT as OTHER_PRIORS

__all__ = ["ENTRIES", "WITHOUT", "Entry"]

ENTRIES: dict[str, dict[str, Entry]] = {"Likelihood": LIKELIHOODS, "Guide": GUIDES, "Prior": PRIORS}
WITHOUT: dict[str, dict[str, str]] = {"Likelihood": OTHER_LIKELIHOODS, "Guide": OTHER_GUIDES, "Prior": OTHER_PRIORS}

"""Every hostile run folder of the table is refused; a good one is loaded under the same watch."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import ppl_vae as pv
from tests.hostile_runs import CASES, TRIPWIRE, answer, beside, named, tripwire


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_run_is_refused(case: str) -> None:
    told = answer(case)
    assert told.count(" ") > 4, told


def test_a_good_run_is_loaded_from_where_it_stands_and_by_a_link() -> None:
    with tripwire(lambda run: None) as run:
        loaded = pv.load_run(run, device="cpu")
        (run.parent / "link").symlink_to(run)
        assert pv.load_run(run.parent / "link", device="cpu").model == loaded.model
        shutil.move(run / "history.jsonl", run / "rows")
        (run / "history.jsonl").symlink_to("rows")  # inside of the folder
        assert pv.load_run(Path(), device="cpu").history == loaded.history


def test_the_tripwire_works() -> None:
    with tripwire(beside(named("stranger.Thing"))) as run:
        with pytest.raises(ValueError, match=r"stranger\.Thing"):
            pv.load_run(run, trust="stranger", device="cpu")
        assert (run / TRIPWIRE).exists()

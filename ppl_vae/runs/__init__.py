"""Saved runs: save, load, resume and compare them."""

from ppl_vae.evaluate.metrics import UNIT
from ppl_vae.runs.archive import measure, save_evaluation, save_run
from ppl_vae.runs.compare import RunComparison, compare_runs, save_run_comparison
from ppl_vae.runs.comparison import save_comparison, write_comparison
from ppl_vae.runs.load import load_run
from ppl_vae.runs.resume import check_unchanged, resume_fit, resume_run
from ppl_vae.runs.saved import SavedRun

__all__ = [
    "UNIT",
    "RunComparison",
    "SavedRun",
    "check_unchanged",
    "compare_runs",
    "load_run",
    "measure",
    "resume_fit",
    "resume_run",
    "save_comparison",
    "save_evaluation",
    "save_run",
    "save_run_comparison",
    "write_comparison",
]

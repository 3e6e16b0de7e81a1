from .archive import measure, save_evaluation, save_run
from .compare import RunComparison, compare_runs, save_run_comparison
from .comparison import save_comparison, write_comparison
from .load import load_run
from .resume import check_unchanged, resume_fit, resume_run
from .saved import SavedRun

__all__ = [
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

"""What hears of a fit as it goes on: progress, metrics, loggers, the run folder, remarks, and callbacks of a user's own."""

from ppl_vae.fitting.callbacks.base import Callback, FitContext
from ppl_vae.fitting.callbacks.loggers import Logger

__all__ = ["Callback", "FitContext", "Logger"]

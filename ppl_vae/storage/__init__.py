"""What lies on disk: files that are whole, the run folder with its lock, snapshots of a fit that goes on."""

from ppl_vae.storage.checkpoint import NULL_CHECKPOINTER, AnyCheckpointer, Checkpointer, Interrupted, NullCheckpointer
from ppl_vae.storage.folder import RunFolder, RunIdentity, check_free
from ppl_vae.storage.snapshot import Snapshot

__all__ = [
    "NULL_CHECKPOINTER",
    "AnyCheckpointer",
    "Checkpointer",
    "Interrupted",
    "NullCheckpointer",
    "RunFolder",
    "RunIdentity",
    "Snapshot",
    "check_free",
]

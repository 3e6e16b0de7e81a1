from .checkpoint import NULL_CHECKPOINTER, AnyCheckpointer, Checkpointer, NullCheckpointer
from .folder import RunFolder, RunIdentity, check_free
from .signals import Interrupted
from .snapshot import Snapshot

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

from .anndata import put_codes
from .byte_pairs import BPE
from .dataset import Data
from .load import load_data
from .patches import Patches
from .ragged import Ragged, sequence_mask
from .source import DataSource
from .split import Split
from .tokenizers import Bytes, Characters, Tokenizer, Words
from .transform import Transform

__all__ = [
    "BPE",
    "Bytes",
    "Characters",
    "Data",
    "DataSource",
    "Patches",
    "Ragged",
    "Split",
    "Tokenizer",
    "Transform",
    "Words",
    "load_data",
    "put_codes",
    "sequence_mask",
]

"""Data: where they come from, how they are split, and what the model sees of them.

:func:`load_data` reads a named set, a file, a folder of images or an array into a :class:`Data`: a :class:`Split` each
of raw train, valid and test values in their smallest dtype, a :class:`Transform` from these to what the model sees, wherever
they lie, and the :class:`~ppl_vae.types.DataSpec` from which models are built. Files that are larger than memory are streamed.
"""

from ppl_vae.data.anndata import put_codes
from ppl_vae.data.byte_pairs import BPE
from ppl_vae.data.dataset import Data
from ppl_vae.data.load import load_data
from ppl_vae.data.patches import Patches
from ppl_vae.data.ragged import Ragged, sequence_mask
from ppl_vae.data.source import DataSource
from ppl_vae.data.split import Split
from ppl_vae.data.tokenizers import Bytes, Characters, Tokenizer, Words
from ppl_vae.data.transform import Transform

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

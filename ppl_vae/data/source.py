"""The declaration of a data set: everything that is needed to load the same rows, split and noise again."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ppl_vae.data.patches import Patches
from ppl_vae.data.tokenizers import Tokenizer, Tokens, TokensName, tokenizer_of
from ppl_vae.declaration import Declaration, require
from ppl_vae.text import at_home
from ppl_vae.types import KINDS, KindName

__all__ = ["LABELLED", "STREAMED", "TABLES", "WEIGHTED", "Binarize", "DataSource", "Scale", "choice"]

LABELLED = (".csv", ".npz", ".parquet", ".tsv", ".ndjson", ".h5ad", "frame")
"""Types of files that may name their labels."""

TABLES = (".csv", ".parquet", ".tsv", ".h5ad", "frame")
"""Types of files with named columns."""
WEIGHTED = (".csv", ".npz", ".parquet", ".tsv", "frame")
"""Types of files that may name their weights."""

STREAMED = (".npy", ".csv", ".tsv", ".parquet", ".npz", ".h5ad")
"""Types of files that may be larger than memory."""

Binarize = Literal["auto", "none", "static", "dynamic"]
Scale = Literal["auto", "none", "unit", "standardize"]
Dequantize = Literal["none", "static", "dynamic"]


@dataclass(frozen=True, kw_only=True)
class DataSource(Declaration):
    """Where the data come from, how they are split, and what the model sees of them.

    Args:
        source: ``digits`` (8 x 8 digits, always available), ``sprites`` (32 x 32 shapes, drawn when they are asked for, whose
            factors ``fields`` may name: ``shape``, ``scale``, ``orientation``, ``position_x``, ``position_y``), a torchvision
            set (``mnist``, ``fashion-mnist``, ``kmnist``,
            ``emnist``, ``qmnist``, ``usps``, ``semeion``, ``cifar10``, ``cifar100``, ``svhn``, ``stl10``; case, ``-`` and ``_``
            do not matter), the path of an ``.npy``, ``.npz``, ``.csv``, ``.tsv`` or ``.parquet`` file, of text (``tokens``), of
            drawings (``.ndjson``), of cells (``.h5ad``), of word counts (``docword.*.txt``), of a folder of ``.npy`` files,
            which follow one another in the order of their names, or a folder of images, whose subfolders, if any, are the
            classes. ``array`` stands for data given in memory, which cannot be loaded again, and ``empty:4x5`` is one row of
            zeros of that shape, for models without data.
        binarize: turn values p in [0, 1] into draws of Bernoulli(p): ``static`` once and for all, ``dynamic`` anew at every
            visit of a training datum (validation and test data are drawn once), ``none`` not at all. ``auto`` is ``dynamic``
            for ``digits`` if the model takes binary data but not [0, 1], else ``none``.
        scale: ``unit`` maps onto [0, 1]: by the number of levels where values are levels (uint8), else per feature by the
            smallest and largest value of all rows, so that no split leaves the interval; values in [0, 1] already stay.
            ``standardize`` gives each feature mean 0 and standard deviation 1 on the training rows; a constant feature keeps
            its scale. ``none`` leaves values alone. ``auto`` is ``unit`` for images (uint8, not flat) unless ``kind`` says
            they are counts or categories, else ``none``; the real columns of a table under ``MixedTable`` it standardizes, and
            the offsets of drawings it divides by their standard deviation, one for dx and dy, as ``standardize`` does.
        dequantize: add uniform noise in [0, 1) to integer values, so that a density can describe them: ``dynamic``, or true,
            anew at every visit of a training datum (validation and test data get theirs once), ``static`` once and for all, as
            methods need that go over the same data again and again (EM), ``none``, or false, not at all. Not together with
            ``binarize``.
        kind: the set in which the values lie once scaled: ``binary``, ``unit_interval``, ``real``, ``count``, ``categorical``
            or ``strokes``, drawings as rows (dx, dy, pen) of different lengths; by default found out from the values.
        weights: column (csv, tsv, parquet, frame) or array (npz) that says how often each row counts, which is then no feature:
            finite numbers not below 0, not all 0; see docs/weights.md. By default each row counts once, and so do rows of
            weights that are all equal, but for models with priors on their parameters, which ask how many rows there are.
        label: column (csv, parquet) or array (npz, by default ``y`` if there is one) of the class labels.
        columns: names of the columns of a table that are data, in this order; by default all but the label. Columns that would
            be left out, because they number or name the rows, are data if they are named.
        drop: names of columns of a table that are no data.
        key: array of an npz file that holds the data; by default ``x``, or the only one besides the labels.
        header: whether the first line of a csv file holds the names of the columns; by default found out, see docs/data.md.
        missing: what to do about missing values: ``error``, or ``ignore`` to hand them to a model that supports them. Rows
            whose label is missing have none.
        missing_text: texts that stand for a missing value or label, in any case, besides what is empty, null or NaN; by
            default ``NA``, ``N/A``, ``#N/A``, ``NaN``, ``null``, ``None``, ``<NA>``; ``[]`` if a class is called so.
        valid: fraction of the rows held out for validation; of the training rows where the source has its own test set.
        test: fraction of the rows held out for testing where the source has no test set of its own; unused otherwise.
        tokens: what rows of text are cut into: ``characters``, ``words`` (in lower case, marks apart) or ``bytes``, or a
            declared tokenizer, such as ``Words(minimum=2)`` or ``BPE(size=2000)``. A ``.txt`` file has a row a line; of other
            files ``column`` holds the text. A ``.txt`` file of which neither this nor ``chunk`` is told is a running text of
            characters in rows of 256, which is told.
        chunk: of a ``.txt`` file, how many tokens of the running text, ends of lines among them, make a row; the last one may
            be shorter, and no row has an end token. The text is split where it stands, train, then valid, then test, so that
            no row is tested whose neighbours were learned. By default a row is a line.
        column: of a csv or tsv file the column of text, by name or by number from 0; by default the only one.
        vocabulary: how many tokens to keep, the most frequent of the training rows; the others become the unknown token. By
            default all of the training rows, and the unknown token only if other rows have others.
        longest: how many elements a row of different lengths has at most, its end token among them; by default any number.
        longer: what becomes of longer rows: ``error`` refuses them, ``split`` makes several rows of each, of which only the
            last has its end. None is cut.
        end: whether a row of text ends with a token of its own, so that its length is part of what is modelled.
        drop_points: of drawings, the probability with which a point inside a stroke is left out at each visit of a training
            drawing, the next one leading past it, as a hand that draws with fewer points (Ha and Eck 2018). The numbers of
            training steps are then of such drawings; those of ``evaluate``, and of validation and test data, never are.
        fields: names of columns of a table, or of observations of an AnnData, that stand beside x and not in it, as covariates
            do; or of the arrays of an npz file that plain programs read, x or the first as x; ragged ones lie there as
            ``<name>_values`` and ``<name>_offsets``.
        patches: small squares that are cut out of images are the rows: :class:`~ppl_vae.Patches`. Images of a folder may then
            differ in size, and are read one after the other.
        layer: of an AnnData (``.h5ad``) the layer that holds the data; by default ``X``.
        standardize: names of fields beside x that programs get with mean 0 and standard deviation 1 over the training rows.
        buckets: the number of lengths to which rows of different lengths are padded, chosen so that little is padded; by
            default at most 6.
        counts: how word counts and sparse matrices are held: ``dense``, a column a word; ``sparse``, the same, of which only
            batches are made dense; ``pairs``, ragged rows of words with a field ``count``. ``auto`` is dense where that takes
            at most a GiB, else sparse.
        stream: MiB of rows to load at once, such as 256, where files are larger than memory; by default all rows are held. The
            values and the splits are the same. Two such blocks are in memory at a time, one in use and one being read, and 8
            bytes for every row. Validation and test rows are held where they fit in one block each, and must if noise is to be
            drawn for them (``binarize``, ``dequantize``). ``.npy`` files are read where they lie; tables (csv, tsv, parquet),
            sparse matrices by rows (npz) and cells (h5ad) are converted once into such files in ``root``, in as much memory,
            which is told with what it takes.
        seed: of the split, but of running text, of the places of patches, and of the noise of validation and test data.
        root: folder of the torchvision sets and of what is converted to be streamed; by default ``$PPL_VAE_DATA``, else
            ``~/.cache/ppl_vae``.
        download: whether a missing torchvision set may be downloaded.

    Raises:
        ValueError: a value outside its choices, ``dequantize`` with ``binarize``, fractions that leave nothing to train on.

    Examples:
        >>> DataSource(source="mnist", binarize="dynamic").valid
        0.1
    """

    source: str = "digits"
    binarize: Binarize = "auto"
    scale: Scale = "auto"
    dequantize: bool | Dequantize = False
    kind: KindName | None = None
    label: str | None = None
    columns: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    weights: str | None = None
    key: str | None = None
    header: bool | None = None
    missing: Literal["error", "ignore"] = "error"
    missing_text: tuple[str, ...] | None = None
    valid: float = 0.1
    test: float = 0.2
    tokens: Tokens | None = None
    chunk: int | None = None
    column: str | None = None
    vocabulary: int | None = None
    longest: int | None = None
    longer: Literal["error", "split"] = "error"
    end: bool = True
    drop_points: float = 0.0
    fields: tuple[str, ...] = ()
    patches: Patches | None = None
    layer: str | None = None
    standardize: tuple[str, ...] = ()
    buckets: int | None = None
    counts: Literal["auto", "dense", "sparse", "pairs"] = "auto"
    stream: int | None = None
    seed: int = 0
    root: str | None = None
    download: bool = False

    def __post_init__(self) -> None:
        named = self.source != "" and "\0" not in self.source
        require(named, "source: a name or a path", self.source)
        choice("binarize", self.binarize, get_args(Binarize))
        choice("scale", self.scale, get_args(Scale))
        choice("dequantize", self.dequantize, (True, False, *get_args(Dequantize)))
        if self.dequantize in ("none", "dynamic"):  # kept as false and true, so that a declaration has one spelling
            object.__setattr__(self, "dequantize", self.dequantize == "dynamic")
        choice("kind", self.kind, (None, *KINDS))
        choice("missing", self.missing, ("error", "ignore"))
        if not isinstance(self.tokens, Tokenizer):
            choice("tokens", self.tokens, (None, *get_args(TokensName)))
        if self.tokens is None and self.chunk is not None and self.source.lower().endswith(".txt"):
            object.__setattr__(self, "tokens", "characters")  # as running text of which nothing is declared is cut
        if self.patches is not None:
            require(self.tokens is None and self.stream is None, "patches of images, with no tokens or stream", self.source)
        choice("counts", self.counts, ("auto", "dense", "sparse", "pairs"))
        choice("longer", self.longer, ("error", "split"))
        require(self.longer == "error" or self.longest is not None, "longest, which longer rows are split at", self.longest)
        for option, least in (("vocabulary", 2), ("buckets", 1), ("longest", 1), ("chunk", 1)):
            value = getattr(self, option)
            require(value is None or (isinstance(value, int) and value >= least), f"{option}: a whole number >= {least}", value)
        if self.tokens is None:
            require(self.vocabulary is None, "tokens, which a vocabulary is of", self.vocabulary)
            require(self.chunk is None, "tokens, which a chunk is of", self.chunk)
        else:
            plain = self.scale in ("auto", "none") and not self.dequantize and self.binarize in ("auto", "none")
            require(plain, "tokens as they are: no scale, dequantize or binarize", self.tokens)
            require(self.kind in (None, "categorical"), "kind categorical of tokens", self.kind)
            name = self.tokens if isinstance(self.tokens, str) else type(self.tokens).__name__
            told = f"all tokens of {name}, no vocabulary of them"
            require(not tokenizer_of(self.tokens).complete or self.vocabulary is None, told, self.vocabulary)
        require(0 <= self.drop_points < 1, "drop_points: a probability in [0, 1)", self.drop_points)
        for option in ("columns", "drop"):
            names = tuple(getattr(self, option))
            object.__setattr__(self, option, names)
            require(len(set(names)) == len(names), f"{option}: different names", names)
        require(not set(self.columns) & set(self.drop), "columns that are not dropped (drop) as well", self.drop)
        require(0 <= self.valid < 1, "valid: a fraction in [0, 1)", self.valid)
        require(0 <= self.test < 1, "test: a fraction in [0, 1)", self.test)
        require(self.weights is None or self.weights != self.label, "weights and label: two columns", self.weights)
        require(self.valid + self.test < 1, "valid + test below 1, to leave rows to train on", self.valid + self.test)
        if self.stream is not None:
            require(isinstance(self.stream, int) and self.stream >= 1, "stream: a whole number of MiB >= 1", self.stream)
        require(isinstance(self.seed, int) and self.seed >= 0, "seed: an integer >= 0", self.seed)
        if self.dequantize:
            require(
                self.binarize in ("auto", "none"), "binarize='none' with dequantize (each adds its own noise)", self.binarize
            )

    def of(self, source: str) -> DataSource:
        """The declaration of another source; options that its format does not know are left out, and so are weights."""
        suffix = Path(source).suffix.lower()
        text = suffix in (".txt", ".csv", ".tsv")
        ragged = (text and self.tokens is not None) or suffix in (".npz", ".ndjson", "")
        return dataclasses.replace(
            self,
            source=source,
            label=self.label if suffix in LABELLED else None,
            columns=self.columns if suffix in TABLES else (),
            drop=self.drop if suffix in TABLES else (),
            weights=None,
            key=self.key if suffix == ".npz" else None,
            header=self.header if suffix in (".csv", ".tsv") else None,
            tokens=self.tokens if text else None,
            chunk=self.chunk if suffix == ".txt" else None,
            column=self.column if text and suffix != ".txt" else None,
            vocabulary=self.vocabulary if text else None,
            longest=self.longest if ragged else None,
            longer=self.longer if ragged else "error",
            drop_points=0.0,
            fields=self.fields if suffix in (".npz", *TABLES) or source == self.source else (),
            patches=self.patches if suffix in ("", ".npy", ".npz") else None,
            layer=self.layer if suffix == ".h5ad" else None,
            stream=self.stream if self._streams(suffix, text=text) else None,
        )

    def _streams(self, suffix: str, *, text: bool) -> bool:
        """Whether rows of other files of a type are streamed as those of this source; an archive may hold no matrix."""
        if text and self.tokens is not None:
            return False
        return suffix in ("", *STREAMED) and (suffix != ".npz" or self.source.lower().endswith(suffix))

    @property
    def tokenizer(self) -> Tokenizer | None:
        """What ``tokens`` declares, or names."""
        return None if self.tokens is None else tokenizer_of(self.tokens)

    @property
    def name(self) -> str:
        """The source in the spelling that names of sets are compared in: lower case, without ``-`` and ``_``."""
        return self.source.lower().replace("-", "").replace("_", "")

    @property
    def folder(self) -> Path:
        """The folder of the torchvision sets."""
        return at_home(self.root or os.environ.get("PPL_VAE_DATA") or "~/.cache/ppl_vae")


def choice(field: str, value: object, valid: tuple[object, ...]) -> None:
    """Raise ``ValueError`` if ``value`` is none of the valid ones."""
    require(value in valid, f"{field}: one of {', '.join(map(str, valid))}", value)

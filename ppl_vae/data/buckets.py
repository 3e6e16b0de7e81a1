"""The few lengths to which rows of different lengths are padded."""

from __future__ import annotations

import numpy as np

__all__ = ["MOST_BUCKETS", "bucket_lengths"]

MOST_BUCKETS = 6
DISTINCT = 512  # lengths that are told apart; of more, neighbours count as the longest of them


def bucket_lengths(lengths: np.ndarray, most: int = MOST_BUCKETS) -> tuple[int, ...]:
    r"""At most so many lengths, rising, the longest the last, so that the fewest elements are padded.

    A row goes to the shortest bucket that holds it. With distinct lengths :math:`l_1 < \dots < l_m`, of :math:`n_j` rows each,
    and :math:`C_j` the fewest elements of buckets that end at :math:`l_j`, dynamic programming takes

    .. math:: C_j^{(k)} = \min_{i < j} \; C_i^{(k - 1)} + l_j \sum_{i < s \le j} n_s .

    Args:
        lengths: of the rows ``(N,)``; a row of none counts as one element.
        most: the number of buckets, at least 1.

    Examples:
        >>> bucket_lengths(np.array([1, 2, 2, 9, 10]), most=2)
        (2, 10)
    """
    found, rows = np.unique(np.maximum(lengths, 1), return_counts=True)
    found, rows = _coarse(found, rows)
    if len(found) <= most:
        return tuple(int(length) for length in found)
    before = np.concatenate([[0], np.cumsum(rows)])  # rows shorter than each length
    cost = np.where(np.arange(len(found) + 1) == 0, 0.0, np.inf)
    cuts = []
    for _ in range(most):
        # table[j, i]: the buckets of one less that end before i, and one from there to the length j
        table = cost[None, :-1] + found[:, None] * (before[1:, None] - before[None, :-1])
        table[np.triu_indices(len(found), 1)] = np.inf
        cuts.append(table.argmin(1))
        cost = np.concatenate([[np.inf], table.min(1)])
    ends, end = [], len(found)
    for cut in reversed(cuts):
        if end:
            ends.append(int(found[end - 1]))
            end = int(cut[end - 1])
    return tuple(reversed(ends))


def _coarse(found: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Not too many lengths with their numbers of rows, neighbours joined under the longest of them."""
    if len(found) <= DISTINCT:
        return found, rows
    parts = np.array_split(np.arange(len(found)), DISTINCT)
    return found[[part[-1] for part in parts]], np.array([rows[part].sum() for part in parts])

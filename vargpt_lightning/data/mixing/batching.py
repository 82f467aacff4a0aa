"""Which records make a batch, by their numbers of tokens: like lengths together, or several in one row.

Pure functions of lengths and a seed: the same arguments give the same batches on every machine, each record comes once.
A window is a run of records that are sorted against each other; records that are far apart in the order never meet, so
batches stay a random sample of the data. Imports no torch.

Shape suffixes: N records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vargpt_lightning.utils.errors import UserError

Indices = NDArray[np.int64]
Seed = int | Sequence[int]
WINDOW = 8192


def token_batches(
    lengths: ArrayLike,
    max_tokens: int,
    *,
    seed: Seed = 0,
    multiple: int = 1,
    window: int = WINDOW,
    max_rows: int | None = None,
    pad_to: int = 1,
    shuffle: bool = True,
) -> list[Indices]:
    """Return batches of records of like length, one a row: rows times the longest, padding included, is in bounds.

    Args:
        lengths: tokens of each record (N,).
        max_tokens: of a batch, padding included.
        multiple: the number of batches is one of these (ranks times accumulated batches): the fullest are halved.
        window: records that are sorted against each other.
        max_rows: at most so many records in a batch.
        pad_to: rows are padded to a multiple of this.
        shuffle: draw windows and batches from all records; otherwise windows follow the given order, and batches are
            shuffled within their window: for an order that was shuffled before, and is meant to keep its mixture.

    Raises:
        UserError: a length that is no positive number or more than `max_tokens`, or fewer records than `multiple`.
    """
    lengths_N = _checked(lengths, max_tokens, multiple)
    padded_N = -(-lengths_N // pad_to) * pad_to
    if len(padded_N) and padded_N.max() > max_tokens:
        raise UserError(f"max_tokens={max_tokens}; expected at least {padded_N.max()}, the longest record as padded")
    rng = np.random.default_rng(seed)
    most = max_rows or len(lengths_N)
    result: list[list[Indices]] = []
    left = np.empty(0, np.int64)
    for part, last in _windows(len(lengths_N), window, rng, shuffle):
        # ties fall as the window has them, at random
        part = np.concatenate((left, part))
        part = part[np.argsort(-padded_N[part], kind="stable")]
        batches, at = [], 0
        while at < len(part):
            rows = min(max_tokens // int(padded_N[part[at]]), most)
            batches.append(part[at : at + rows])
            at += rows
        left = np.empty(0, np.int64)
        if not last and at > len(part):  # the shortest are too few for a batch: they go on to the next window
            left = batches.pop()
        result.append(batches)
    return _even([batches for batches in result if batches], multiple, rng, shuffle)


def packed_batches(
    lengths: ArrayLike,
    max_tokens: int,
    row_tokens: int,
    *,
    seed: Seed = 0,
    multiple: int = 1,
    window: int = WINDOW,
    shuffle: bool = True,
) -> list[Indices]:
    """Return batches of as many packed rows as `max_tokens` holds; `split_rows` finds the rows of a batch again.

    A row holds several records, at most `row_tokens` together: first-fit decreasing within windows. The other arguments
    and the errors are those of `token_batches`.
    """
    lengths_N = _checked(lengths, row_tokens, multiple)
    if max_tokens < row_tokens:
        raise UserError(f"max_tokens={max_tokens}; expected at least {row_tokens}, the tokens of a row")
    rng = np.random.default_rng(seed)
    windows = _rows(lengths_N, row_tokens, window, rng, shuffle)
    if shuffle:
        windows = [[row for rows in windows for row in rows]]
    count = max_tokens // row_tokens
    result, rows = [], list[Indices]()
    for number, more in enumerate(windows):
        rows += [more[place] for place in rng.permutation(len(more))]
        whole = len(rows) if number + 1 == len(windows) else len(rows) // count * count
        result.append([np.concatenate(rows[at : min(at + count, whole)]) for at in range(0, whole, count)])
        rows = rows[whole:]
    return _even(result, multiple, rng, shuffle)


def split_rows(lengths: Sequence[int], row_tokens: int) -> list[slice]:
    """Return the rows of a packed batch: each goes on with the next record while it fits.

    In the order of `packed_batches` there are never more rows than were planned, also where records came out shorter.
    """
    rows, first, filled = [], 0, 0
    for place, length in enumerate(lengths):
        if place > first and filled + length > row_tokens:
            rows.append(slice(first, place))
            first, filled = place, 0
        filled += length
    return [*rows, slice(first, len(lengths))]


def _checked(lengths: ArrayLike, most: int, multiple: int) -> Indices:
    lengths_N = np.asarray(lengths).astype(np.int64)
    if lengths_N.ndim != 1:
        raise UserError(f"lengths: got {lengths_N.ndim} dimensions, expected one number a record")
    if len(lengths_N) and not (lengths_N.min() > 0 and lengths_N.max() <= most):
        bad = int(np.argmax((lengths_N < 1) | (lengths_N > most)))
        raise UserError(f"record {bad} has {lengths_N[bad]} tokens; expected 1 to {most}, what a batch or row holds")
    if len(lengths_N) < multiple:
        raise UserError(f"{len(lengths_N)} records; expected at least {multiple}, one for each rank's batch")
    return lengths_N


def _windows(count: int, window: int, rng: np.random.Generator, shuffle: bool) -> Iterator[tuple[Indices, bool]]:
    """Yield the records of each window, and whether it is the last."""
    order = rng.permutation(count) if shuffle else np.arange(count)
    for first in range(0, count, window):
        yield order[first : first + window], first + window >= count


def _even(windows: list[list[Indices]], multiple: int, rng: np.random.Generator, shuffle: bool) -> list[Indices]:
    """Shuffle the batches, of all windows together or of each, and halve the fullest until their number is right."""
    parts = [[batch for batches in windows for batch in batches]] if shuffle else windows
    batches = [part[place] for part in parts for place in rng.permutation(len(part))]
    while missing := -len(batches) % multiple:
        fullest = np.argsort([-len(batch) for batch in batches], kind="stable")[:missing]
        halved = {int(place) for place in fullest if len(batches[place]) > 1}
        batches = [
            half
            for place, batch in enumerate(batches)
            for half in (np.array_split(batch, 2) if place in halved else [batch])
        ]
    return batches


def _rows(
    lengths_N: Indices, row_tokens: int, window: int, rng: np.random.Generator, shuffle: bool
) -> list[list[Indices]]:
    """Return the packed rows of each window; a window's last row, seldom full, is packed again with the next one's."""
    result: list[list[Indices]] = []
    left = np.empty(0, np.int64)
    for part, last in _windows(len(lengths_N), window, rng, shuffle):
        part = np.concatenate((left, part))
        part = part[np.argsort(-lengths_N[part], kind="stable")]
        rows = _first_fit_decreasing(part, lengths_N[part], row_tokens)
        left = np.empty(0, np.int64) if last else rows.pop()
        result.append(rows)
    return result


def _first_fit_decreasing(records: Indices, lengths: Indices, row_tokens: int) -> list[Indices]:
    """Fill rows one by one, each with the longest record that still fits: what first-fit decreasing comes to.

    `lengths` are in decreasing order. The longest length at hand that is no longer than some bound is found by
    union-find over lengths: those that are used up point to the next shorter one.
    """
    sizes, first, counts = np.unique(-lengths, return_index=True, return_counts=True)
    at = dict(zip((-sizes).tolist(), first.tolist(), strict=True))
    left = [0] * (row_tokens + 1)
    for size, count in zip((-sizes).tolist(), counts.tolist(), strict=True):
        left[size] = count
    shorter = [size if count else size - 1 for size, count in enumerate(left)]
    shorter[0] = 0
    order: list[int] = []
    ends: list[int] = []
    while len(order) < len(records):
        room = size = row_tokens
        while True:
            while shorter[size] != size:
                shorter[size] = shorter[shorter[size]]
                size = shorter[size]
            if size == 0:
                break
            take = min(left[size], room // size)
            order.extend(range(at[size], at[size] + take))
            at[size] += take
            left[size] -= take
            room -= take * size
            if not left[size]:
                shorter[size] = size - 1
            size = min(room, size)
        ends.append(len(order))
    packed = records[np.array(order, np.int64)]
    return np.split(packed, ends[:-1])

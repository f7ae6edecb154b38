"""Shares that were chosen as the run went on (adaptive scheduling), as a record that a plan can follow.

A record is a list of segments, each with a whole number of positions for each task. Then every task's quota
is a whole number at every boundary, so no position of one segment is allowed or due in another: what has been
drawn does not change when a later segment is chosen, the bound of 3/4 of a position holds across all of them,
and a replay of the record gives the same plan.
"""

import itertools
from collections.abc import Sequence
from fractions import Fraction

from unigeoseg.errors import UserError
from unigeoseg.schedules.pts import SCALE, IntShares, Number, Piece, ShareCurve, check_shares


def segment_counts(shares: Sequence[Number], length: int) -> IntShares:
    """Positions of each task in a segment of ``length``, by largest remainder (ties: first task).

    Raises:
        UserError: negative or all-zero shares.
    """
    check_shares(shares, "recorded shares")
    exact = [Fraction(s) for s in shares]
    wanted = [s * length / sum(exact) for s in exact]
    counts = [int(w) for w in wanted]
    order = sorted(range(3), key=lambda t: (counts[t] - wanted[t], t))
    for t in order[: length - sum(counts)]:
        counts[t] += 1
    return counts[0], counts[1], counts[2]


def recorded_curve(segments: Sequence[IntShares]) -> ShareCurve:
    """The curve of a record; after the last segment its shares hold for ever.

    Args:
        segments: positions of each task, segment by segment.

    Raises:
        UserError: there is no segment, or one is empty or has a negative number.
    """
    pieces: list[Piece] = []
    begin = 0
    for i, counts in enumerate(segments):
        if min(counts) < 0 or not any(counts):
            raise UserError(f"segment {i} of the schedule record is {counts}: three numbers >= 0, one above")
        pieces += _segment(begin, counts)
        begin += sum(counts)
    if not pieces:
        raise UserError("the schedule record has no segment; give at least the first")
    return ShareCurve(pieces)


def _segment(begin: int, counts: IntShares) -> list[Piece]:
    """Constant shares that sum to exactly ``counts``: the remainders of the division come first."""
    length = sum(counts)
    whole = [SCALE * n // length for n in counts]
    more = [SCALE * n % length for n in counts]  # positions that have one unit of 1 / SCALE more
    # The third task has what the others leave, so only their two remainders cut the segment.
    edges = sorted({0, more[0], more[1], length})
    pieces = []
    for low, high in itertools.pairwise(edges):
        a, b = whole[0] + (low < more[0]), whole[1] + (low < more[1])
        shares = (a, b, SCALE - a - b)
        pieces.append(Piece(begin + low, begin + high, shares, shares))
    return pieces

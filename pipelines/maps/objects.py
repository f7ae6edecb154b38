"""Pieces of blocks become objects of the raster."""

from collections import defaultdict

from pipelines.maps.grid import Grid
from pipelines.maps.pieces import Borders, Groups, Piece, joined, neighbours
from pipelines.maps.work import Found, Work

_Key = tuple[int, int]


def join_pieces(work: Work, grid: Grid) -> int:
    """Joins pieces that meet across blocks; how many objects there are then.

    What is in memory are the numbers of the pieces at blocks' edges; outlines are read a group at a time.

    Args:
        work: with the pieces of every block.
        grid: of the raster.
    """
    groups, cut = _meeting(work, grid)
    members: dict[_Key, list[_Key]] = defaultdict(list)
    for key in work.edge_pieces():
        members[groups.find(key)].append(key)
    work.begin_objects()
    for keys in members.values():
        pieces = [work.piece(*key) for key in keys]
        number, first = min(zip([key[0] for key in keys], pieces, strict=True), key=_first)
        outlines = [piece.outline for piece in pieces]
        work.add_object(
            Found(
                number=number,
                row=first.row,
                column=first.column,
                area=sum(piece.area for piece in pieces),
                score_sum=sum(piece.score_sum for piece in pieces),
                score_max=max(piece.score_max for piece in pieces),
                cut=any(piece.cut for piece in pieces) or any(key in cut for key in keys),
                outline=joined(outlines) if len(outlines) > 1 else outlines[0],
            )
        )
    return work.end_objects()


def _first(at: tuple[int, Piece]) -> tuple[int, int]:
    return at[1].row, at[1].column


def _meeting(work: Work, grid: Grid) -> tuple[Groups, set[_Key]]:
    """Groups of pieces that meet, and the pieces that end at a block about which nothing is known."""
    groups, cut = Groups(), set[_Key]()
    down, across = grid.blocks
    above: list[Borders | None] = [None] * across
    for row in range(down):
        before: Borders | None = None
        for column in range(across):
            number = row * across + column
            here = work.borders(number)
            if column > 0:
                _meet(groups, cut, (number - 1, before), (number, here), ("right", "left"))
            if row > 0:
                _meet(groups, cut, (number - across, above[column]), (number, here), ("bottom", "top"))
            above[column] = before = here
    return groups, cut


def _meet(
    groups: Groups,
    cut: set[_Key],
    one: tuple[int, Borders | None],
    two: tuple[int, Borders | None],
    sides: tuple[str, str],
) -> None:
    """Two neighbouring blocks, and the sides that lie against each other."""
    numbers = (one[0], two[0])
    lines = [getattr(b, side) if b else None for (_, b), side in zip((one, two), sides, strict=True)]
    for number, line, other in ((numbers[0], lines[0], lines[1]), (numbers[1], lines[1], lines[0])):
        if line is not None and other is None:
            cut |= {(number, int(label)) for label in set(line.tolist()) if label > 0}
    if lines[0] is None or lines[1] is None:
        return
    pairs, first, second = neighbours(lines[0], lines[1])
    for a, b in pairs:
        groups.join((numbers[0], a), (numbers[1], b))
    cut |= {(numbers[0], a) for a in first} | {(numbers[1], b) for b in second}

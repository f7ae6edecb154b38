"""Whether a text still says the same of a picture that is cropped or turned. English is read."""

import re
from typing import Final

#: Where something is in the picture, or in which direction from something else.
_PLACE: Final = """
    left right top bottom upper lower upside up down upward downward upwards downwards clockwise
    leftmost rightmost topmost bottommost uppermost lowermost centermost
    above below beneath underneath under over overhead front behind back foreground background
    centre center central centrally middle mid corner edge border boundary margin frame side half halves
    quarter quadrant third part horizontal horizontally vertical vertically diagonal diagonally
    north south east west northern southern eastern western northeast northwest southeast southwest
    northeastern northwestern southeastern southwestern
"""
#: How a thing stands to the rest, which a crop may cut or lose: number, order, comparison, neighbourhood.
_OTHERS: Final = """
    one two three four five six seven eight nine ten pair both several many few all each every only sole
    single first second fourth fifth last next other another rest remaining group row whole entire fill
    dominate than most least largest biggest smallest longest shortest widest narrowest tallest highest lowest
    larger bigger smaller longer shorter wider narrower taller higher same similar different
    nearest closest farthest furthest nearer closer farther further
    near nearby close beside adjacent adjoining along alongside around round between among amid amidst
    opposite across facing toward from surrounded surrounding surround enclosed enclosing enclose
    inside outside within touching touch connected connecting connect parallel bordering bordered
    neighbouring neighboring neighbour neighbor isolated alone apart separated separate
"""
_PLACES: Final = frozenset(_PLACE.split())
_ALL: Final = _PLACES | frozenset(_OTHERS.split())
_WORD: Final = re.compile(r"[A-Za-z]+")


def speaks_of_place(text: str) -> bool:
    """Whether ``text`` may say where in the picture, or in which direction, something is.

    Letters outside ASCII count as if it did: what they say is not known.
    """
    return _says(text, _PLACES)


def speaks_of_surroundings(text: str) -> bool:
    """Whether ``text`` may say something that depends on more of the picture than the thing itself.

    Beside place that is number, order, comparison and what stands near. Letters outside ASCII count as if it
    did.
    """
    return _says(text, _ALL)


def _says(text: str, words: frozenset[str]) -> bool:
    if any(c.isalpha() and not c.isascii() for c in text):
        return True
    found = {word.lower() for word in _WORD.findall(text)}
    return not words.isdisjoint(found | {word.removesuffix("s") for word in found})

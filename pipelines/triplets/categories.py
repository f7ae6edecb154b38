"""Category names of the triplet data sets and the ids of the merged taxonomy that they mean."""

import re
from functools import cache

from pipelines.labels.taxonomy import taxonomy

#: DIOR's and the expressions' spellings that are not the taxonomy's own, letters and digits only.
_OTHER_NAMES = {
    "golffield": "golfcourse",
    "plane": "airplane",
    "harbour": "harbor",
    "trackfield": "groundtrackfield",
    "playground": "groundtrackfield",
    "vehicles": "vehicle",
    "soccerballfield": "soccerfield",
    "baseballdiamond": "baseballfield",
    "footballfield": "soccerfield",
}


@cache
def taxonomy_id(name: str) -> int:
    """The id that a data set's category name means, 0 where the taxonomy has none.

    Words before it may describe it: "large gray chimney" is a Chimney. The longest name that fits counts.
    """
    words = name.split()
    for start in range(len(words)):
        letters = _letters("".join(words[start:]))
        if found := _by_letters().get(_OTHER_NAMES.get(letters, letters)):
            return found
    return 0


@cache
def _by_letters() -> dict[str, int]:
    found: dict[str, int] = {}
    for category in taxonomy().values():
        found.setdefault(_letters(category.name), category.id)
    return found


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.lower())

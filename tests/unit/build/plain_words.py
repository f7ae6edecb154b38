"""Reads a phrase the way a person would, and says which regions of a category it fits.

Written from the words alone: it shares no code with the writer or its checker.
"""

import re

import numpy as np

_SIDES = {"left": (0, 1), "right": (0, -1), "top": (1, 1), "up": (1, 1), "bottom": (1, -1), "down": (1, -1)}


def fits(text, noun, members, regions, nouns, height, width):
    """Places (of ``members``) that the phrase is true of.

    Args:
        text: the phrase.
        noun: noun phrase of the category.
        members: places of the category's regions.
        regions: all regions of the tile.
        nouns: noun phrase of each region.
        height, width: of the tile.
    """
    text = text.lower()
    full = [np.argwhere(r.full(height, width)) for r in regions]
    centre = np.asarray([[p[:, 1].mean() / width, p[:, 0].mean() / height] for p in full])
    left = set(members)
    anchors = "|".join(re.escape(n) for n in sorted(set(nouns) - {noun}, key=len, reverse=True)) or "$^"

    def keep(test):
        nonlocal left
        left &= {m for m in members if test(m)}

    def distance(m, name):
        theirs = np.concatenate([full[i] for i, n in enumerate(nouns) if n == name])
        return float(np.sqrt(((full[m][:, None].astype(float) - theirs[None]) ** 2).sum(-1)).min())

    used = text
    for direction, name in re.findall(rf"(left of|right of|above|below) the ({anchors})", text):
        (place,) = [i for i, n in enumerate(nouns) if n == name]
        axis, sign = {"left of": (0, 1), "right of": (0, -1), "above": (1, 1), "below": (1, -1)}[direction]
        keep(lambda m, a=axis, s=sign, p=place: s * (centre[p][a] - centre[m][a]) > 0.05)
        used = re.sub(rf"(to the )?{direction} the {re.escape(name)}", "", used)
    for words, name in re.findall(rf"(next to|beside|close to) (?:the|an?) ({anchors})", text):
        keep(lambda m, n=name: distance(m, n) < 0.1 * max(height, width))
        used = re.sub(rf"{words} (the|an?) {re.escape(name)}", "", used)
    for words, name in re.findall(rf"(nearest to|closest to|furthest from) the ({anchors})", text):
        away = {m: distance(m, name) for m in members}
        wanted = max(away.values()) if words == "furthest from" else min(away.values())
        keep(lambda m, a=away, w=wanted: a[m] == w)
        used = re.sub(rf"{words} the {re.escape(name)}", "", used)
    for word, rank in (
        ("leftmost", "left"),
        ("rightmost", "right"),
        ("topmost", "top"),
        ("bottommost", "bottom"),
    ):
        if word in used:
            keep(_ranked(members, centre, rank, 0))
            used = used.replace(word, "")
    if match := re.search(r"furthest (?:to the )?(left|right|up|down)", used):
        keep(_ranked(members, centre, match[1], 0))
        used = used.replace(match[0], "")
    if match := re.search(r"second (?:.*) from the (left|top)", used):
        keep(_ranked(members, centre, match[1], 1))
        used = used.replace(match[0], "")
    sizes = {m: len(full[m]) for m in members}
    if match := re.search(r"\b(largest|biggest|smallest)\b", used):
        wanted = min(sizes.values()) if match[1] == "smallest" else max(sizes.values())
        keep(lambda m: sizes[m] == wanted)
    for colour in ("red", "blue", "green", "white", "grey", "brown", "yellow"):
        if re.search(rf"\b{colour}\b", used):
            keep(lambda m, c=colour: regions[m].colour == c)
    _zones(used.replace(noun, ""), keep, centre)
    return left


def _ranked(members, centre, side, rank):
    axis, sign = _SIDES[side]
    order = sorted(members, key=lambda m: sign * centre[m][axis])
    return lambda m: order[rank] == m


def _zones(text, keep, centre):
    text = text.replace("of the image", "")
    if "mid-height" in text or "halfway up" in text:
        keep(lambda m: 0.33 < centre[m][1] < 0.67)
    if re.search(r"\b(top|upper)\b", text):
        keep(lambda m: centre[m][1] < 0.46)
    if re.search(r"\b(bottom|lower)\b", text):
        keep(lambda m: centre[m][1] > 0.54)
    if re.search(r"\bleft\b", text):
        keep(lambda m: centre[m][0] < 0.46)
    if re.search(r"\bright\b", text):
        keep(lambda m: centre[m][0] > 0.54)
    if re.search(r"(top|bottom) centre|in the middle$|at the (top|bottom) in the middle", text.strip()):
        keep(lambda m: 0.33 < centre[m][0] < 0.67)
    if re.search(r"(in|near) the (centre|middle)", text) and not re.search(r"\b(top|bottom)\b", text):
        keep(lambda m: 0.33 < centre[m][0] < 0.67 and 0.33 < centre[m][1] < 0.67)

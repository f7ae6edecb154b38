"""Reads a phrase the way a person would, and says which regions of a category it fits.

Written from the words and the pixels alone: it shares no code with the writer or its checker. Its limits lie
between the writer's "true" and "false", as a reader's might.
"""

import re

import numpy as np

_AXES = {"left": (0, 1), "right": (0, -1), "top": (1, 1), "bottom": (1, -1)}
_SIDES = {"up": "top", "down": "bottom", "upper": "top", "lower": "bottom"}
_NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
_COLOURS = ("red", "blue", "green", "white", "grey", "brown", "yellow")
_TRAITS = (*_COLOURS, "elongated", "narrow", "compact")


class _Reader:
    def __init__(self, text, noun, members, regions, nouns, height, width):
        self.text, self.members, self.nouns = text, members, nouns
        self.regions, self.height, self.width = regions, height, width
        self.full = [np.argwhere(r.full(height, width)) for r in regions]
        self.centre = np.asarray(
            [[(p[:, 1].mean() + 0.5) / width, (p[:, 0].mean() + 0.5) / height] for p in self.full]
        )
        others = sorted(set(nouns) - {noun}, key=len, reverse=True)
        self.anchor = "|".join(re.escape(n) for n in others) or "$^"
        self.left = set(members)

    def keep(self, test):
        self.left &= {m for m in self.members if test(m)}

    def take(self, pattern):
        """Every match of a pattern, which is then cut out of the text."""
        found = list(re.finditer(pattern, self.text))
        self.text = re.sub(pattern, " ", self.text)
        return found

    def pixels(self, name):
        return [self.full[i] for i, n in enumerate(self.nouns) if n == name]

    def sole(self, name):
        (place,) = [i for i, n in enumerate(self.nouns) if n == name]
        return place

    def away(self, member, name):
        theirs = np.concatenate(self.pixels(name)).astype(float)
        return float(np.sqrt(((self.full[member][:, None] - theirs[None]) ** 2).sum(-1)).min())


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
    reader = _Reader(text.lower(), noun.lower(), members, regions, [n.lower() for n in nouns], height, width)
    _relations(reader)
    _order(reader)
    _traits(reader)
    _zones(reader, noun.lower())
    return reader.left


def _relations(r):
    a, sign = r.anchor, {"left": (0, 1), "right": (0, -1), "above": (1, 1), "below": (1, -1)}
    for m in r.take(rf"between the ({a}) and the ({a})"):
        ends = r.centre[[r.sole(m[1]), r.sole(m[2])]]
        line = ends[1] - ends[0]
        place = (r.centre - ends[0]) @ line / (line @ line)
        aside = np.linalg.norm(r.centre - ends[0] - place[:, None] * line, axis=1) / np.linalg.norm(line)
        r.keep(lambda i, p=place, s=aside: 0.17 < p[i] < 0.83 and s[i] < 0.25)
    for m in r.take(rf"(?:surrounded|enclosed) by (?:the|an?) ({a})"):
        r.keep(lambda i, name=m[1]: _enclosed(r, i, name) > 0.6)
    for m in r.take(rf"(?:on the )?(left|right) (?:side )?of the ({a})|(above|below) the ({a})"):
        axis, s = sign[m[1] or m[3]]
        place = r.sole(m[2] or m[4])
        r.keep(lambda i, x=axis, s=s, p=place: s * (r.centre[p][x] - r.centre[i][x]) > 0.05)
    for m in r.take(rf"(?:next to|beside|close to) (?:the|an?) ({a})"):
        r.keep(lambda i, name=m[1]: r.away(i, name) < 0.1 * max(r.height, r.width))
    for m in r.take(rf"(nearest to|closest to|furthest from|nearer to|closer to|further from) the ({a})"):
        away = {i: r.away(i, m[2]) for i in r.members}
        wanted = (
            max(away.values())
            if m[1].startswith("further") or m[1].startswith("furthest")
            else min(away.values())
        )
        r.keep(lambda i, w=wanted, d=away: d[i] == w)


def _enclosed(r, member, name):
    """Share of the pixels within three rows and columns of a region that one thing of this name covers."""
    own = {tuple(p) for p in r.full[member]}
    ring = {(y + dy, x + dx) for y, x in own for dy in range(-3, 4) for dx in range(-3, 4)} - own
    return max(len(ring & {tuple(p) for p in one}) for one in r.pixels(name)) / len(ring)


def _order(r):
    for m in r.take(r"(?:touching|cut off by) the (left|right|top|bottom) edge of the image"):
        axis, s = _AXES[m[1]]
        border = 0 if s > 0 else (r.height, r.width)[1 - axis] - 1
        r.keep(lambda i, x=1 - axis, b=border: (r.full[i][:, x] == b).any())
    size = {i: len(r.full[i]) for i in r.members}
    traits = "|".join(_TRAITS)
    for m in r.take(rf"\bthe (left|right|upper|lower)((?: (?:{traits}))*) (?=one\b|of the two\b)"):
        assert len(r.members) == 2
        r.text += f" {m[2]} "
        r.keep(_ranked(r, _SIDES.get(m[1], m[1]), 0))
    for m in r.take(r"\b(left|right|top|bottom)most\b"):
        r.keep(_ranked(r, m[1], 0))
    for m in r.take(r"furthest (?:to the )?(left|right|up|down)\b"):
        r.keep(_ranked(r, _SIDES.get(m[1], m[1]), 0))
    for m in r.take(r"\b(second|third)\b(?=.* from the (left|right|top|bottom)\b)"):
        r.keep(_ranked(r, m[2], {"second": 1, "third": 2}[m[1]]))
        r.take(r"from the (left|right|top|bottom)\b")
    for m in r.take(r"\b(largest|biggest|smallest|larger|bigger|smaller)\b"):
        wanted = min(size.values()) if m[1].startswith("small") else max(size.values())
        r.keep(lambda i, w=wanted: size[i] == w)


def _ranked(r, side, rank):
    axis, s = _AXES[side]
    order = sorted(r.members, key=lambda m: s * r.centre[m][axis])
    return lambda m: order[rank] == m


def _traits(r):
    for m in r.take(r"\bthe (only|single)\b(?! one)"):
        assert len(r.members) == 1, (m[1], r.text)
    for m in r.take(r"\b(two|three|four|five|six)\b"):
        assert len(r.members) == _NUMBERS[m[1]], (m[1], r.text)
    for m in r.take(rf"\b({'|'.join(_COLOURS)})\b"):
        r.keep(lambda i, c=m[1]: r.regions[i].colour == c)
    if r.take(r"\b(elongated|narrow)\b"):
        r.keep(lambda i: _elongation(r.full[i]) > 2.4)
    if r.take(r"\bcompact\b"):
        r.keep(lambda i: _elongation(r.full[i]) < 1.7)


def _elongation(pixels):
    """Sides of the smallest of the rectangles around the pixels, turned by full degrees."""
    angles = np.radians(np.arange(90))
    u = pixels @ np.stack([np.cos(angles), np.sin(angles)])
    v = pixels @ np.stack([-np.sin(angles), np.cos(angles)])
    a, b = np.ptp(u, axis=0) + 1, np.ptp(v, axis=0) + 1
    best = int(np.argmin((a - 1) * (b - 1)))
    return max(a[best], b[best]) / min(a[best], b[best])


def _zones(r, noun):
    text, keep, centre = r.text.replace(noun, "").replace("of the image", "").rstrip(" .?"), r.keep, r.centre
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
    if re.search(r"(top|bottom) centre|at the (top|bottom) in the middle", text):
        keep(lambda m: 0.33 < centre[m][0] < 0.67)
    if re.search(r"(in|near) the (centre|middle)", text) and not re.search(r"\b(top|bottom)\b", text):
        keep(lambda m: 0.33 < centre[m][0] < 0.67 and 0.33 < centre[m][1] < 0.67)

"""Random tiles for the writer, and what every sentence must satisfy."""

import re

import numpy as np

from pipelines.build.instruct.facts import TileFacts
from pipelines.labels.regions import split_instances

VOWEL_SOUND = re.compile(r"\b(a) ([aeiou])|\b(an) (?!hour)([^aeiou\W])", re.IGNORECASE)


def tile(seed, categories, side=96, most=12):
    """Rectangles of the given categories at random, some inside others, some thin, some at the border."""
    rng = np.random.default_rng(seed)
    labels, kinds, colours = np.zeros((side, side), np.int32), {}, {}
    for n in range(1, int(rng.integers(5, most))):
        y, x, h, w = *rng.integers(-4, side - 16, 2), *rng.integers(5, 26, 2)
        if n == 1 and rng.random() < 0.5:
            h, w = 48, 52
        elif rng.random() < 0.2:
            h = 4
        labels[max(y, 0) : y + h, max(x, 0) : x + w] = n
        kinds[n] = int(rng.choice(categories))
        colours[n] = str(rng.choice(["red", "white", "blue"])) if rng.random() < 0.8 else None
    regions, _ = split_instances(labels, kinds, {n: c for n, c in colours.items() if c}, 10)
    return TileFacts(regions, side, side), rng


def faults(text):
    """What is wrong with the form of a text."""
    found = []
    if not re.match(r"[A-Z]", text):
        found.append("no capital at the beginning")
    if not text.endswith((".", "?")) or text.endswith(("?.", "..", ".?")):
        found.append("no single mark at the end")
    if re.search(r"[.?] [a-z]", text):
        found.append("a sentence begins small")
    if "  " in text or text != text.strip() or re.search(r" [,.;:?]", text) or re.search(r"[{}|]", text):
        found.append("spacing or a slot")
    if VOWEL_SOUND.search(text):
        found.append("a or an")
    if re.search(r"\b(\w+) \1\b", text, re.IGNORECASE):
        found.append("a word twice")
    return found

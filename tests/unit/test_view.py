"""Views of a picture: pixels, masks, boxes, points and written coordinates move together, to the pixel."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.build.instruct.meaning import AtEdge, Coloured, InZone, Ranked, Shaped, Sized
from pipelines.build.instruct.words import wordings
from unigeoseg.samples.place_words import speaks_of_place, speaks_of_surroundings
from unigeoseg.samples.prompts import interactive_sentence, parse_coordinates
from unigeoseg.samples.sample import ImageGroup, Sample
from unigeoseg.samples.view import OTHER_TURNS, Freedom, View, extent_to_keep, freedom, retold

TURNS = list(itertools.product((False, True), range(4)))


def interactive(mask, points=None, text=None):
    height, width = mask.shape
    ys, xs = mask.nonzero()
    box = None
    if points is None:
        corners = xs.min() / width, ys.min() / height, (xs.max() + 1) / width, (ys.max() + 1) / height
        box = tuple(round(float(v), 6) for v in corners)
    text = text or interactive_sentence(box=box, points=points)
    return Sample("s/k/interactive/0", "interactive", text, mask, box=box, points=points)


@st.composite
def pictures(draw):
    """A picture of any shape with a region, and a view of it that holds the region."""
    height, width = draw(st.integers(6, 30)), draw(st.integers(6, 30))
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    mask = np.zeros((height, width), np.uint8)
    mask[top : top + draw(st.integers(1, 9)), left : left + draw(st.integers(1, 9))] = 1
    flip, turns = draw(st.sampled_from(TURNS))
    seen = np.rot90(mask[:, ::-1] if flip else mask, turns)
    ys, xs = seen.nonzero()
    window = (
        draw(st.integers(-5, int(ys.min()))),
        draw(st.integers(int(ys.max()) + 1, seen.shape[0] + 5)),
        draw(st.integers(-5, int(xs.min()))),
        draw(st.integers(int(xs.max()) + 1, seen.shape[1] + 5)),
    )
    return mask, View(flip, turns, window)


@given(pictures(), st.booleans())
@settings(max_examples=200, deadline=None)
def test_region_prompt_and_text_stay_together(picture, pointed):
    mask, view = picture
    height, width = mask.shape
    points = None
    if pointed:
        ys, xs = mask.nonzero()
        chosen = [0, len(ys) // 2, len(ys) - 1]
        points = tuple(((int(xs[i]) + 0.5) / width, (int(ys[i]) + 0.5) / height) for i in chosen)
    image = np.arange(mask.size, dtype=np.uint32).reshape(height, width, 1).view(np.uint8)[..., :3]
    group = ImageGroup(np.ascontiguousarray(image), (interactive(mask, points),))
    seen = view.group(group)
    (sample,) = seen.samples
    assert sample.mask.sum() == mask.sum() and sample.mask.shape == seen.image.shape[:2]
    # The pixels of the region are the same ones, as a set.
    inside = {tuple(p) for p in seen.image[sample.mask > 0].tolist()}
    assert inside == {tuple(p) for p in image[mask > 0].tolist()}
    rows, columns = sample.mask.shape
    if pointed:
        for x, y in sample.points:
            assert sample.mask[int(y * rows), int(x * columns)]
            assert (x * columns) % 1 == pytest.approx(0.5) and (y * rows) % 1 == pytest.approx(0.5)
    else:
        expected = interactive(sample.mask).box
        assert sample.box == pytest.approx(expected, abs=2e-5)
    box, written = parse_coordinates(sample.instruction)
    own = sample.box or [v for p in sample.points for v in p]
    assert (box or [v for p in written for v in p]) == pytest.approx(own, abs=5.1e-4)
    assert sample.instruction == interactive_sentence(sample.box, sample.points)


@pytest.mark.parametrize(("flip", "turns"), TURNS)
def test_turns_are_all_different_and_extents_follow(flip, turns):
    picture = np.arange(6, dtype=np.uint8).reshape(2, 3)
    views = {View(f, t, (0, 3, 0, 2) if t % 2 else (0, 2, 0, 3)).array(picture).tobytes() for f, t in TURNS}
    assert len(views) == 8
    mask = np.zeros((9, 14), np.uint8)
    mask[2:4, 5:11] = 1
    view = View(flip, turns, (0, 14, 0, 9) if turns % 2 else (0, 9, 0, 14))
    top, bottom, left, right = view.extent((2, 4, 5, 11), 9, 14)
    seen = view.array(mask)
    assert seen[top:bottom, left:right].all() and seen.sum() == 12 == (bottom - top) * (right - left)


def test_a_picture_is_shown_smaller_or_in_part():
    picture = np.arange(1, 13, dtype=np.uint8).reshape(3, 4)
    larger = View(False, 0, (-1, 4, -2, 6)).array(picture)
    assert larger.shape == (5, 8) and larger.sum() == picture.sum()
    assert (larger[1:4, 2:6] == picture).all()
    part = View(False, 0, (1, 3, 0, 2)).array(picture)
    assert part.tolist() == [[5, 6], [9, 10]]
    part[:] = 0
    assert picture[1, 0] == 5, "a copy"


def test_what_must_be_kept_is_regions_and_prompts():
    mask = np.zeros((20, 40), np.uint8)
    mask[5:8, 10:12] = 1
    sample = Sample("a", "referring", "the road", mask)
    assert extent_to_keep([sample], 20, 40) == (5, 8, 10, 12)
    wide = Sample("b", "interactive", "it", mask, box=(0.2, 0.2, 0.4, 0.5))
    assert extent_to_keep([sample, wide], 20, 40) == (4, 10, 8, 16)
    pointed = Sample("c", "interactive", "it", mask, points=((0.9125, 0.025),))
    assert extent_to_keep([pointed], 20, 40) == (0, 8, 10, 37)
    assert extent_to_keep([Sample("d", "reasoning", "it", np.zeros_like(mask))], 20, 40) is None


MASK = np.pad(np.ones((2, 2), np.uint8), 4)
BOX = "x0,y0=[0.400,0.400], x1,y1=[0.600,0.600]"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"Segment the object inside the box {BOX}.", Freedom.CROP),
        ("Segment what the box shows.", Freedom.CROP),
        (f"Segment the northern object in {BOX}.", Freedom.SHRINK),
        (f"Segment the object left of the road in {BOX}.", Freedom.SHRINK),
        ("Segment the object inside [0.4,0.4] and [0.6,0.6].", Freedom.NONE),
        (f"Segment the object inside the box {BOX}, not in {BOX}.", Freedom.NONE),
        ("Segment the object inside the box x0,y0=[0.1,0.1], x1,y1=[0.6,0.6].", Freedom.NONE),
        ("Segment the object in <40><40><60><60>.", Freedom.NONE),
    ],
)
def test_interactive_texts_that_coordinates_do_not_exhaust_are_left_alone(text, expected):
    sample = interactive(MASK, text=text)
    assert freedom(sample) is expected
    assert all((retold(sample, *turn) is not None) is (expected is Freedom.CROP) for turn in OTHER_TURNS)
    assert retold(sample, False, 0) is sample


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        ("the red car", "", Freedom.CROP),
        ("Which place would let planes land?", "The runway: it is long and flat.", Freedom.CROP),
        ("Which place would let planes land?", "The runway at the top.", Freedom.SHRINK),
        ("the building in the upper left", "", Freedom.SHRINK),
        ("the largest building", "", Freedom.SHRINK),
        ("a storage tank beside others", "", Freedom.SHRINK),
        ("la construcción roja", "", Freedom.SHRINK),
        ("左边的建筑", "", Freedom.SHRINK),
        ("the car at (120, 44)", "", Freedom.NONE),
        ("the car at [0.5,0.5]", "", Freedom.NONE),
    ],
)
def test_words_decide_for_the_other_tasks(text, answer, expected):
    task = "reasoning" if answer else "referring"
    sample = Sample("a", task, text, MASK, answer=answer)
    assert freedom(sample) is expected
    assert retold(sample, False, 0) is sample
    assert all(retold(sample, *turn) is None for turn in OTHER_TURNS)


def test_a_text_for_another_view_goes_with_its_pixels():
    texts = tuple((f"text of {turn}", f"answer of {turn}") for turn in OTHER_TURNS)
    image = np.arange(300, dtype=np.uint32).view(np.uint8).reshape(10, 10, 12)[..., :3].copy()
    sample = Sample("a", "reasoning", "as it is", MASK, answer="so", views=(*texts[:6], None))
    for n, turn in enumerate(OTHER_TURNS[:6]):
        (seen,) = View(*turn, (0, 10, 0, 10)).group(ImageGroup(image, (sample,))).samples
        assert (seen.instruction, seen.answer) == texts[n]
        assert (seen.mask == np.rot90(MASK[:, ::-1] if turn[0] else MASK, turn[1])).all()
    with pytest.raises(ValueError, match="has no text for flip=True, turns=3"):
        View(True, 3, (0, 10, 0, 10)).group(ImageGroup(image, (sample,)))


def test_the_embedded_writers_phrases_are_told_apart():
    axes = ("top", "middle", "bottom", None), ("left", "middle", "right", None)
    zones = [InZone(*pair) for pair in itertools.product(*axes) if pair != (None, None)]
    zones = [
        zone
        for zone in zones
        if not (None in (zone.vertical, zone.horizontal) and "middle" in (zone.vertical, zone.horizontal))
    ]
    sides = ("left", "right", "top", "bottom")
    place = [*zones, *map(AtEdge, sides), *(Ranked(side, rank) for side in sides for rank in (1, 2, 3))]
    for predicate, two in itertools.product([*place, Sized("largest"), Sized("smallest")], (False, True)):
        for wording in wordings(predicate, None, two):
            text = f"the {wording.before} building {wording.after}"
            assert speaks_of_surroundings(text), text
            assert isinstance(predicate, Sized) or speaks_of_place(text), text
    for predicate in (Shaped("elongated"), Shaped("compact"), Coloured("red")):
        for wording in wordings(predicate, None):
            assert not speaks_of_surroundings(f"the {wording.before} building")
    for words in (
        "to the left of",
        "above",
        "next to",
        "beside",
        "close to",
        "nearer to",
        "between",
        "enclosed by",
    ):
        assert speaks_of_surroundings(f"the building {words} the road")

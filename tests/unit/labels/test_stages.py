"""What a build says when nothing came out of it."""

import pytest

from pipelines.labels.stages import StageCounts


@pytest.mark.parametrize(
    ("stage", "dropped", "says"),
    [
        (None, {}, "No label lies on a picture"),
        ("split", {"noise": 4}, "'split': {'noise': 4}"),
        ("boxes", {"unknown_class": 4}, "'boxes': {'unknown_class': 4}"),
        ("referring", {"empty_mask": 4}, "'referring': {'empty_mask': 4}"),  # ready samples have no regions
    ],
)
def test_why_nothing_came_out(stage, dropped, says):
    counts = StageCounts()
    counts.add("read", 2, 2)
    counts.add("tile", 3, 3)
    counts.add("standardise", 900, 900)
    counts.add("files", 9, 2, {"other_file": 7})
    if stage:
        counts.add(stage, 4, 0, dropped)
        assert "No label" not in counts.why_nothing()
    assert says in counts.why_nothing() and "3 tiles, 0 regions" in counts.why_nothing()

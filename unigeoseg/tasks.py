"""The three instruction tasks of GeoSeg-1M and their fixed order."""

from typing import Final

INTERACTIVE: Final = "interactive"
REFERRING: Final = "referring"
REASONING: Final = "reasoning"

#: Task names; a task's id is its place here, in tensors, plans and files alike.
TASKS: Final[tuple[str, str, str]] = (INTERACTIVE, REFERRING, REASONING)
TASK_IDS: Final[dict[str, int]] = {name: i for i, name in enumerate(TASKS)}

#: Kinds of samples, as their subtask: an instruction for all regions of a category, and one for a category
#: that is not in the picture, whose mask is empty.
COLLECTIVE: Final = "collective"
ABSENT: Final = "absent"

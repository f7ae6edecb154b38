"""Machines that are unfit or slow: named, and where others can take their place, left out."""

import logging
import statistics
from collections.abc import Sequence
from typing import Any

from pipelines.train.engine.engine import Engine
from pipelines.train.engine.health import UnfitNodeError, examine, judged
from pipelines.train.loop.channel import Channel
from pipelines.train.loop.metrics import RankReport

logger = logging.getLogger(__name__)
#: A rank is slow when its own part of a step takes so many times the middle rank's, and that is such a share
#: of the step.
_TIMES, _SHARE = 1.5, 0.1


def check_machines(engine: Engine, channel: Channel) -> None:
    """Looks at all ranks' machines; a collective call.

    Raises:
        UnfitNodeError: one must not train. The driver was told which, and the next start leaves it out.
    """
    unfit, doubts = judged(examine(engine.device, channel.place()))
    if engine.rank == 0:
        for text in doubts:
            logger.warning("%s", text)
        if unfit:
            channel.leave_out(unfit)
    if unfit:
        raise UnfitNodeError(f"unfit to train: {', '.join(unfit.values())}")


def slowest(reports: Sequence[RankReport]) -> dict[str, Any] | None:
    """The rank that the others wait for since the last row, if there is one.

    Counted is what a rank does by itself: the wait for its data and its forward pass. The backward pass ends
    on all ranks at once.

    Args:
        reports: of all ranks.

    Returns:
        ``{"rank", "host", "times", "data"}``: how many times the middle rank's, and the share of it that was
        waiting for data.
    """
    if len(reports) < 2:
        return None
    own = [report.seconds.wait + report.seconds.forward for report in reports]
    middle = statistics.median_low(own)
    most = max(range(len(own)), key=own.__getitem__)
    report = reports[most]
    step = sum(vars(report.seconds).values())
    if own[most] < _TIMES * middle or own[most] - middle < _SHARE * step:
        return None
    times = own[most] / max(middle, 1e-9)
    return {"rank": most, "host": report.host, "times": times, "data": report.seconds.wait / own[most]}

"""Checkpoints before their time: asked for by the driver, agreed on by the ranks, answered once."""

import time

import pytest

from pipelines.train.loop.channel import ANSWER, Mailbox
from pipelines.train.loop.preemption import Notice


class _Alone:
    """What a notice needs of the engine of one rank."""

    rank = 0

    def gather(self, value):
        return [value]


def heard(notice):
    """Number of the wish that arrives within two seconds; 0: none."""
    for _ in range(40):
        wish = notice.agreed(notice.heard())
        if wish.checkpoint:
            return wish.asked
        time.sleep(0.05)
    return 0


@pytest.mark.parametrize("asks", [1, 3])
def test_what_one_group_answered_the_next_does_not_answer_again(asks):
    mailbox = Mailbox()
    with Notice(_Alone(), mailbox, catch=False) as first:
        assert not first.agreed(first.heard()).checkpoint
        for _ in range(asks):
            mailbox.ask()
        assert heard(first) == asks
        mailbox.post(ANSWER, {"asked": asks})
    with Notice(_Alone(), mailbox, catch=False) as second:
        assert not heard(second)
        mailbox.ask()
        assert heard(second) == asks + 1


def test_what_no_group_answered_the_next_one_does():
    mailbox = Mailbox()
    mailbox.ask()
    with Notice(_Alone(), mailbox, catch=False) as notice:
        assert heard(notice)


def test_what_is_asked_while_a_checkpoint_is_written_is_not_answered_by_it():
    mailbox = Mailbox()
    assert mailbox.ask() == 1
    with Notice(_Alone(), mailbox, catch=False) as first:
        assert heard(first) == 1
        assert mailbox.ask() == 2  # its steps are not in that checkpoint
        mailbox.post(ANSWER, {"asked": 1})
    assert mailbox.answered() == 1
    with Notice(_Alone(), mailbox, catch=False) as second:
        assert heard(second) == 2

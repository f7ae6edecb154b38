"""Checkpoints before their time: asked for by the driver, agreed on by the ranks, answered once."""

import time

import pytest
import torch

from pipelines.train.loop.channel import ANSWER, Mailbox
from pipelines.train.loop.preemption import Notice


class _Alone:
    """What a notice needs of the engine of one rank."""

    rank, world, device = 0, 1, torch.device("cpu")

    def gather(self, value):
        return [value]


def heard(notice):
    """Whether a wish arrives within two seconds."""
    for _ in range(40):
        if notice.agreed().checkpoint:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("asks", [1, 3])
def test_what_one_group_answered_the_next_does_not_answer_again(asks):
    mailbox = Mailbox()
    with Notice(_Alone(), mailbox, catch=False) as first:
        assert not first.agreed().checkpoint
        for _ in range(asks):
            mailbox.ask()
        assert heard(first)
        mailbox.post(ANSWER, {})
    with Notice(_Alone(), mailbox, catch=False) as second:
        assert not heard(second)
        mailbox.ask()
        assert heard(second)


def test_what_no_group_answered_the_next_one_does():
    mailbox = Mailbox()
    mailbox.ask()
    with Notice(_Alone(), mailbox, catch=False) as notice:
        assert heard(notice)

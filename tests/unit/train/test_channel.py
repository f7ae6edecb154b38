"""What workers tell the driver."""

import logging

from pipelines.train.loop.channel import FATAL, ForwardWarnings, Listener, Mailbox


def test_messages_arrive_in_order_and_once():
    mailbox, seen = Mailbox(), []
    with Listener(mailbox.drain, lambda kind, content: seen.append((kind, content["n"])), interval=0.01):
        for n in range(20):
            mailbox.post("row", {"n": n})
    assert seen == [("row", n) for n in range(20)] and mailbox.drain() == []


def test_a_look_that_fails_does_not_hold_messages_up():
    mailbox, seen = Mailbox(), []

    def look():
        raise ConnectionError("the control store does not answer")

    mailbox.fail(ValueError("no space"))
    with Listener(mailbox.drain, lambda kind, content: seen.append(kind), interval=0.01, look=look):
        pass
    assert seen == [FATAL]


def test_first_final_error_counts_and_is_announced():
    mailbox = Mailbox()
    assert not mailbox.failed()
    mailbox.fail(ValueError("first"))
    mailbox.fail(ValueError("second"))
    assert mailbox.failed() and str(mailbox.failure()) == "first"
    assert [kind for kind, _ in mailbox.drain()] == [FATAL, FATAL]


def test_warnings_of_a_worker_reach_the_driver():
    mailbox = Mailbox()
    with ForwardWarnings(mailbox):
        logging.getLogger("pipelines.runs.manifest").warning("checkpoint %d is damaged", 7)
        logging.getLogger("pipelines.runs.manifest").info("nothing to see")
    logging.getLogger("pipelines").warning("after the end")
    (message,) = [content["message"] for _, content in mailbox.drain()]
    assert message.startswith("rank 0") and message.endswith(": checkpoint 7 is damaged")

"""Runs ``unigeoseg serve`` or ``app`` as a user would, on a free port; reads the address that it prints."""

import os
import re
import time

from tests.warm import Command, start_warm


def start(*arguments: str, **environment: str) -> tuple[Command, str]:
    """The running process and its address; ``environment`` goes over this process's own."""
    words = ("jobs.cli", *arguments, "--port", "0")
    process = start_warm(*words, environment={**os.environ, **environment}, joined=True)
    while process.poll() is None:
        if found := re.search(r"^serving (http://\S+)|^open (http://\S+)", process.printed(), re.MULTILINE):
            return process, found[1] or found[2]
        time.sleep(0.02)
    raise AssertionError(process.printed())

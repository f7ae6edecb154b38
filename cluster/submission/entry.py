"""What a submitted job runs first: ``python -m cluster.submission.entry COMMAND…``.

Opens the sealed secrets into the command's environment, passes its output on without them, and ends with its
exit code. A command is never left behind: it is told what this process is told, also while it starts, and
ends with it.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

from cluster.errors import InputError
from cluster.submission.redaction import SECRET_NAMES, Redactor
from cluster.submission.sealed import SEALED, open_sealed

_PR_SET_PDEATHSIG = 1


def main(command: Sequence[str]) -> int:
    """Runs ``command``; returns its exit code (128 + number for a signal).

    Raises:
        InputError: the secrets cannot be opened.
    """
    environment = dict(os.environ)
    secrets: dict[str, str] = {}
    if text := environment.pop(SEALED, None):
        secrets = open_sealed(text)
        environment[SECRET_NAMES] = ",".join(secrets)  # for what the command itself logs into files
    told: list[int] = []
    process: subprocess.Popen[str] | None = None

    def pass_on(number: int, _: FrameType | None) -> None:
        if process is None:  # it is about to be started
            told.append(number)
        else:
            process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    process = subprocess.Popen(
        command,
        env=environment | secrets | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        bufsize=1,
        preexec_fn=_end_with_parent,
    )
    for number in told:
        process.send_signal(number)
    redact = Redactor(secrets)
    assert process.stdout is not None
    for line in process.stdout:
        sys.stdout.write(redact(line))
        sys.stdout.flush()
    code = process.wait()
    return code if code >= 0 else 128 - code


def _end_with_parent() -> None:
    """In the command's process: SIGTERM when this one is killed, which cannot pass that on."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except InputError as error:
        error.show()
        sys.exit(error.exit_code)

"""What a submitted job runs first: ``python -m cluster.submission.entry COMMAND…``.

Opens the sealed secrets into the command's environment, passes its output on without them, and ends with its
exit code.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from cluster.errors import InputError
from cluster.submission.redaction import SECRET_NAMES, Redactor
from cluster.submission.sealed import SEALED, open_sealed


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
    process = subprocess.Popen(
        command,
        env=environment | secrets | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        bufsize=1,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _: process.send_signal(got))
    redact = Redactor(secrets)
    assert process.stdout is not None
    for line in process.stdout:
        sys.stdout.write(redact(line))
        sys.stdout.flush()
    code = process.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except InputError as error:
        error.show()
        sys.exit(error.exit_code)

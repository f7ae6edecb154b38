"""What each worker process of a submitted job runs before its first task, on whichever node it is.

Ray calls :func:`open_secrets` by its name (``worker_process_setup_hook`` of the job's runtime environment).
"""

import os

from cluster.submission.redaction import keep_out_of_logs
from cluster.submission.sealed import SEALED, open_sealed

#: For the job's runtime environment.
HOOK = f"{__name__}.open_secrets"


def open_secrets() -> None:
    """Puts the job's secrets into the process's environment, and keeps them out of its ``.out`` and ``.err``.

    Raises:
        InputError: this node has no access token, or another one than at submission.
    """
    if text := os.environ.get(SEALED):
        secrets = open_sealed(text)
        os.environ.update(secrets)
        keep_out_of_logs(secrets)

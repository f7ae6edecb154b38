"""Runs ``unigeoseg serve`` or ``app`` as a user would, on a free port; reads the address that it prints."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def start(*arguments, **environment):
    command = [sys.executable, "-m", "jobs.cli", *arguments, "--port", "0"]
    kept = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
    process = subprocess.Popen(
        command, cwd=ROOT, env=kept, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    lines = []
    for line in process.stdout:
        if found := re.search(r"^serving (http://\S+)|^open (http://\S+)", line):
            return process, found[1] or found[2]
        lines.append(line)
    raise AssertionError("".join(lines))

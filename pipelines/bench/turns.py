"""Processes that work in turns, so that what a machine does meanwhile hits all of them alike.

The asker and the workers meet in a folder: a file asks for a turn, another answers. The workers may be
started in whatever way; between their turns they sleep.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

_LOOK_SECONDS = 0.005
_STOP = "stop"


class Turns:
    """The asker's side; a context manager, at whose end the workers return.

    Args:
        folder: an empty folder on this machine.
        alive: whether the workers may still answer.
    """

    def __init__(self, folder: Path, alive: Callable[[], bool] = lambda: True) -> None:
        self._folder, self._alive, self._count = folder, alive, 0

    def __enter__(self) -> "Turns":
        return self

    def __exit__(self, *_: object) -> None:
        (self._folder / _STOP).touch()

    def ask(self, worker: str, steps: int) -> list[float]:
        """Lets a worker do ``steps`` steps; the seconds of each.

        Raises:
            RuntimeError: the workers have ended.
        """
        self._count += 1
        name = f"{worker}-{self._count:06d}"
        _write(self._folder / f"ask-{name}", steps)
        answer = self._folder / f"done-{name}"
        while not answer.exists():
            if not self._alive():
                raise RuntimeError(f"the {worker} process ended before its turn")
            time.sleep(_LOOK_SECONDS)
        seconds: list[float] = json.loads(answer.read_text(encoding="utf-8"))
        return seconds


def serve_turns(folder: Path, worker: str, step: Callable[[], float]) -> None:
    """A worker's side: does the steps that it is asked for until the asker is at its end.

    Args:
        folder: the asker's.
        worker: own name.
        step: does one and returns its seconds.
    """
    while not (folder / _STOP).exists():
        asked = sorted(folder.glob(f"ask-{worker}-*"))
        if not asked:
            time.sleep(_LOOK_SECONDS)
            continue
        steps = int(json.loads(asked[0].read_text(encoding="utf-8")))
        asked[0].unlink()
        _write(folder / asked[0].name.replace("ask-", "done-"), [step() for _ in range(steps)])


def _write(path: Path, content: object) -> None:
    partial = path.with_name(f".{path.name}")
    partial.write_text(json.dumps(content), encoding="utf-8")
    partial.replace(path)

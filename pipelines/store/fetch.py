"""Byte ranges of a store's shards, from a folder or S3: batched, bounded, retried."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.storage.filesystem import storage_errors
from pipelines.storage.ranges import open_ranges
from pipelines.storage.retry import Attempts, Retry, ShortRead
from pipelines.store.index import no_access
from unigeoseg.errors import UserError

#: Shard (relative to the store), offset and length in bytes.
Range = tuple[str, int, int]


@dataclass
class FetchStats:
    """What reading cost: requests sent, bytes received, repetitions, seconds."""

    requests: int = 0
    bytes: int = 0
    retries: int = 0
    seconds: float = 0.0


class RangeFetcher:
    """Reads ranges of shards, many at once.

    Args:
        store: folder or ``s3://`` prefix.
        retry: how storage errors are met.
        at_once: most requests under way at a time.
    """

    def __init__(self, store: str, retry: Retry | None = None, at_once: int = 32) -> None:
        self.store = store
        self._retry = retry or Retry()
        # Repetitions are ours: bounded in time, counted, and with the object's name at the end.
        self._read, self._root = open_ranges(store, at_once)

    def fetch(self, ranges: Sequence[Range], stats: FetchStats) -> list[bytes]:
        """The bytes of each range, in order.

        Raises:
            UserError: an object stays missing, refused, short or unreachable; names it.
        """
        attempts = Attempts(self._retry)
        found: dict[int, bytes] = {}
        waiting = list(range(len(ranges)))
        while True:
            errors = self._attempt(ranges, waiting, found, stats)
            if not errors:
                break
            self._give_up(ranges, errors, attempts)
            waiting = sorted(errors)
            stats.retries += len(waiting)
            attempts.wait()
        stats.seconds += attempts.waited
        return [found[i] for i in range(len(ranges))]

    def _attempt(
        self, ranges: Sequence[Range], waiting: Sequence[int], found: dict[int, bytes], stats: FetchStats
    ) -> dict[int, BaseException]:
        """Asks for the waiting ranges once; fills ``found`` and returns what went wrong."""
        paths = [f"{self._root}/{ranges[i][0]}" for i in waiting]
        starts = [ranges[i][1] for i in waiting]
        ends = [ranges[i][1] + ranges[i][2] for i in waiting]
        stats.requests += len(waiting)
        try:
            answers = self._read(paths, starts, ends)
        except storage_errors() as error:
            return dict.fromkeys(waiting, error)
        errors: dict[int, BaseException] = {}
        for i, answer in zip(waiting, answers, strict=True):
            length = ranges[i][2]
            if isinstance(answer, BaseException):
                errors[i] = answer
            elif len(answer) != length:
                errors[i] = ShortRead(
                    f"{len(answer)} of {length} bytes at offset {ranges[i][1]}: the shard is truncated or "
                    "does not belong to this index; copy or build the store again"
                )
            else:
                found[i] = answer
                stats.bytes += length
        return errors

    def _give_up(self, ranges: Sequence[Range], errors: dict[int, BaseException], attempts: Attempts) -> None:
        for i, error in errors.items():
            if not isinstance(error, Exception):
                raise error
            if attempts.are_spent(error):
                name = f"{self.store}/{ranges[i][0]}"
                if isinstance(error, FileNotFoundError):
                    raise UserError(
                        f"{name} is missing, though the index names it; copy or build the store again"
                    ) from error
                raise UserError(no_access(name, error)) from error

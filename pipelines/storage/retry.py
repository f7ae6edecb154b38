"""How long storage that does not answer is waited for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Retry:
    """How storage errors are met.

    Attributes:
        patience_s: how long an object may stay out of reach before the run stops; more than the minute of an
            ordinary outage.
        refused_s: the same for an object that is missing, refused or too short, where waiting rarely helps.
        first_s: pause before the first repetition; it doubles each time.
        longest_s: longest pause.
    """

    patience_s: float = 180.0
    refused_s: float = 3.0
    first_s: float = 0.2
    longest_s: float = 10.0

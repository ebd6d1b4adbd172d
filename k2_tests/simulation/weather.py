"""What fails in one seed, and how often: drawn once, so that some seeds have much of one trouble and none of another."""

from __future__ import annotations

from random import Random

FAULTS = (
    "head_fails",  # the catalog does not answer a load
    "commit_refused",  # a clean conflict without a reason
    "commit_not_sent",  # the request never arrived; the caller cannot know
    "answer_lost",  # it landed, the answer did not arrive
    "answer_late",  # the caller gave up; it is applied later, if its base is still the head
    "tried_again",  # the client lost the answer, and tries again by itself
    "disk_full",  # a file is not taken
    "machine_lost",  # who dies takes the unsynced files along
    "fetch_fails",  # the log does not answer
    "short_batch",  # a batch is given before it is full
    "ask_fails",  # watermarks or incarnation cannot be had
    "walks_away",  # a run ends politely in the middle
)
"""Names of faults, each a question a port asks at one place."""
RATES = (0.0, 0.0, 0.0, 0.02, 0.1, 0.25)
"""Probability of one fault per question: half of all faults are absent from a seed."""
FAIR = 0.3
"""Share of seeds in which nothing fails by itself: what goes wrong there is the schedule alone."""
OFTEN = ("head_fails", "disk_full", "ask_fails")
"""Asked so often in one run that these rates would let none come to its end; they are divided by 8."""


class Weather:
    """The faults of one seed."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        fair = rng.random() < FAIR
        self.rates = {name: 0.0 if fair else rng.choice(RATES) / (8 if name in OFTEN else 1) for name in FAULTS}
        self.struck: dict[str, int] = {}

    def strikes(self, fault: str) -> bool:
        """Whether this fault happens here and now."""
        rate = self.rates[fault]
        if not rate or self.rng.random() >= rate:
            return False
        self.struck[fault] = self.struck.get(fault, 0) + 1
        return True

    def clears(self) -> None:
        """From now on nothing fails."""
        self.rates = dict.fromkeys(FAULTS, 0.0)

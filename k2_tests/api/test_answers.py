from __future__ import annotations

import httpx2 as httpx

from k2_resources.settings import Settings
from k2_tests.api.examiner import Examiner

CASES = 500
"""`make torture` asks ten times as many."""


def test_every_answer_equals_what_a_second_reader_reads(client: httpx.Client, filled: Settings) -> None:
    Examiner(client, filled, seed=20241122).examine(CASES)

from __future__ import annotations

import httpx2 as httpx

from k2_tests.api.fuzz import fuzz

EXAMPLES = 5
"""Of each operation, beside those that the document's own bounds give; `make torture` asks a hundred times as many."""


def test_whatever_is_asked_is_answered_as_the_openapi_document_says(client: httpx.Client) -> None:
    fuzzed = fuzz(str(client.base_url), client.headers["X-API-Key"], examples=EXAMPLES, seed=7)
    assert fuzzed.is_clean, fuzzed.said

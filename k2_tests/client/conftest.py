"""The filled home of the API's tests, and its server's address."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import httpx2 as httpx
import pytest

from k2_resources.settings import Settings
from k2_tests.api.conftest import filled, quote_rows, rows
from k2_tests.api.homes import serving

__all__ = ["filled", "quote_rows", "rows", "server"]


@dataclass(frozen=True)
class Server:
    """A running API: where, and the key that opens it."""

    url: str
    key: str


@pytest.fixture(scope="session")
def server(filled: Settings) -> Iterator[Server]:
    settings = filled.model_copy(update={"sql": True, "sql_seconds_max": 30.0})
    with serving(settings) as client:
        yield server_of(client)


def server_of(client: httpx.Client) -> Server:
    return Server(str(client.base_url).rstrip("/"), client.headers["X-API-Key"])

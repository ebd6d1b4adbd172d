"""The one real Kafka of a test session, as a fixture."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from k2_tests.kafka_server.maven import Unavailable
from k2_tests.kafka_server.server import KafkaServer


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A real Apache Kafka; tests that need it are skipped, with the reason, where it cannot be had."""
    try:
        server = KafkaServer(tmp_path_factory.mktemp("kafka"))
    except Unavailable as missing:
        pytest.skip(f"no real Apache Kafka here: {missing}")
    try:
        server.create()
        yield server
    finally:
        server.stop()

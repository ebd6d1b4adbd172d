"""The schedules that broke Iceberg's Kafka Connect sink, on the embedded broker; e2e/test_real_kafka has the others."""

from __future__ import annotations

import pytest

from k2_resources.embedded_broker import embedded_broker
from k2_tests.crash.sink_schedules import SCHEDULES
from k2_tests.kafka_server import ledger_stack
from k2_tests.stacks import TOPICS


@pytest.mark.timeout(240)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.__name__)
def test_nothing_is_lost_and_nothing_doubled_by(schedule, tmp_path, registry_url):
    with (
        embedded_broker(TOPICS) as bootstrap,
        ledger_stack(tmp_path / "home", bootstrap, registry_url, rows_per_commit=50) as here,
    ):
        schedule(here)
        here.prove()

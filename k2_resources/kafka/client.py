"""What every client of ours has in common."""

from __future__ import annotations

from typing import Any

from confluent_kafka import cimpl

Message: Any = cimpl.Message
"""A consumed or delivered message. The client's stubs call each of its parts optional; these have them all."""

CLIENT = {
    "log_level": 2,  # what goes wrong is raised or logged by K2; the client's own lines would only repeat it
    "reconnect.backoff.max.ms": 1_000,  # a broker that restarts is found again within a second
}

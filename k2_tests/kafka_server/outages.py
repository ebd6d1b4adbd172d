"""A broker that goes away and comes back while others work."""

from __future__ import annotations

import threading
import time

from k2_tests.kafka_server.server import KafkaServer

OUTAGE_SECONDS = 1.0
"""How long a broker stays away in the middle of something: less than any client of ours waits."""
_BEFORE_SECONDS = 0.5


class Outages(threading.Thread):
    """Kill the server and start it again on the same data, some times."""

    def __init__(self, server: KafkaServer, *, count: int) -> None:
        super().__init__(name="outages", daemon=True)
        self.server, self.count = server, count

    def run(self) -> None:
        for _ in range(self.count):
            time.sleep(_BEFORE_SECONDS)
            self.server.kill()
            time.sleep(OUTAGE_SECONDS)
            self.server.start()

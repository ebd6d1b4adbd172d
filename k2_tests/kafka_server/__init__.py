"""A real Apache Kafka for tests, started from Maven's jars on loopback where Java and Maven are installed.

A test module asks for it with `pytest_plugins = ["k2_tests.kafka_server.fixture"]`. Keep all such tests in one module:
under pytest-xdist every worker that runs one starts a server of its own.
"""

from k2_tests.kafka_server.ledger import Ledger
from k2_tests.kafka_server.maven import Unavailable
from k2_tests.kafka_server.outages import Outages
from k2_tests.kafka_server.server import KafkaServer, kafka_jars
from k2_tests.kafka_server.stack import LedgerStack, RealStack, ledger_stack, real_stack

__all__ = [
    "KafkaServer",
    "Ledger",
    "LedgerStack",
    "Outages",
    "RealStack",
    "Unavailable",
    "kafka_jars",
    "ledger_stack",
    "real_stack",
]

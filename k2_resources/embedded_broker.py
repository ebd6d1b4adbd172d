"""The embedded broker: librdkafka's mock cluster, real protocol over TCP, memory only, in a process of its own.

It keeps 5 MiB per Kafka partition and drops the oldest beyond, consumed or not: producers hold back, and its
incarnation, a UUID in topic `k2.incarnation`, tells everybody when all of it is gone. For one laptop.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from confluent_kafka import KafkaException, Producer, TopicPartition, cimpl
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from k2_core.errors import K2Error, Misconfigured, Unreachable
from k2_resources import clock, telemetry

INCARNATION_TOPIC = "k2.incarnation"
FALLBACK_PARTITIONS = 4
"""Kafka partitions of every topic where the C functions are out of reach: librdkafka's constant."""
_PRODUCER = 0
"""RD_KAFKA_PRODUCER; the mock cluster needs any client handle to live in."""
_ERROR_BYTES = 512
_LOG_LEVEL = b"3"
"""Errors; below that it warns that this client, which only hosts the cluster, names no servers."""
_ANSWER_SECONDS = 10.0
"""A broker in memory answers in milliseconds; this is for a machine under load."""
_WATERMARKS_EVERY_SECONDS = 1.0
_WATERMARKS_KEPT = 20
"""Brokers that may crash one after the other before one of them is adopted."""
_START_SECONDS_MAX = 30.0
_STOP_SECONDS_MAX = 10.0
_POLL_SECONDS = 0.02

_LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]

log = structlog.get_logger(__name__)


def broker_file(home: Path) -> Path:
    """Where a broker that is ready writes its bootstrap address, incarnation and process id."""
    return home / "run" / "broker.json"


def watermarks_file(home: Path) -> Path:
    """Where a broker writes how far each Kafka partition went, each second."""
    return home / "run" / "watermarks.json"


def run(topics: Mapping[str, int], home: Path) -> None:
    """Serve topics, name -> Kafka partitions, until SIGTERM, SIGINT or the end of the parent process."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    parent = os.getppid()
    bootstrap, _cluster = _start({**topics, INCARNATION_TOPIC: 1})
    incarnation = str(uuid.uuid4())
    _produce_incarnation(bootstrap, incarnation)
    ready = {"bootstrap": bootstrap, "incarnation": incarnation, "pid": os.getpid()}
    admin = AdminClient({"bootstrap.servers": bootstrap})
    _keep_watermarks(home)
    _record_watermarks(admin, incarnation, home)
    _write(broker_file(home), ready)
    log.info("broker ready", topics=dict(topics), **ready)
    while not stop.wait(_WATERMARKS_EVERY_SECONDS) and os.getppid() == parent:
        _record_watermarks(admin, incarnation, home)
    _record_watermarks(admin, incarnation, home)
    log.info("broker ends; what was not ingested is gone", incarnation=incarnation)


@contextmanager
def embedded_broker(topics: Mapping[str, int], home: Path | None = None) -> Iterator[str]:
    """Run a broker as a child process and give its bootstrap address; it ends with the block. For tests and tools."""
    with tempfile.TemporaryDirectory(prefix="k2-broker-") as scratch:
        place = home or Path(scratch)
        named = [f"{topic}={partitions}" for topic, partitions in topics.items()]
        child = subprocess.Popen([sys.executable, "-m", "k2_resources.embedded_broker", str(place), *named])
        try:
            yield _await_ready(child, broker_file(place))
        finally:
            child.terminate()
            try:
                child.wait(_STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _await_ready(child: subprocess.Popen[bytes], file: Path) -> str:
    deadline = time.monotonic() + _START_SECONDS_MAX
    while time.monotonic() < deadline and child.poll() is None:
        ready = json.loads(file.read_text()) if file.exists() else {}
        if ready.get("pid") == child.pid:
            return str(ready["bootstrap"])
        time.sleep(_POLL_SECONDS)
    raise Unreachable(f"embedded broker: not ready after {_START_SECONDS_MAX:.0f} s, exit code {child.poll()}")


def _start(topics: Mapping[str, int]) -> tuple[str, object]:
    """Start the cluster. Returns its address and what must stay referenced for it to live."""
    try:
        return _start_native(topics)
    except (AttributeError, OSError) as error:
        log.warning(
            "no mock cluster functions in the client library", reason=str(error), partitions=FALLBACK_PARTITIONS
        )
    # topics appear, all with four Kafka partitions, when somebody first asks for them
    host = Producer({"bootstrap.servers": "", "test.mock.num.brokers": 1})
    for topic in topics:
        host.list_topics(topic, timeout=_ANSWER_SECONDS)
    brokers = host.list_topics(timeout=_ANSWER_SECONDS).brokers.values()
    return ",".join(f"{broker.host}:{broker.port}" for broker in brokers), host


def _start_native(topics: Mapping[str, int]) -> tuple[str, object]:
    library = _library()
    error = ctypes.create_string_buffer(_ERROR_BYTES)
    configuration = library.rd_kafka_conf_new()
    library.rd_kafka_conf_set(configuration, b"log_level", _LOG_LEVEL, error, _ERROR_BYTES)
    client = library.rd_kafka_new(_PRODUCER, configuration, error, _ERROR_BYTES)
    cluster = library.rd_kafka_mock_cluster_new(client, 1) if client else None
    if not cluster:
        raise K2Error(f"embedded broker: librdkafka refused to start: {error.value.decode() or 'no reason given'}")
    for topic, partitions in topics.items():
        if partitions < 1:
            raise Misconfigured(f"topic {topic} with {partitions} Kafka partitions: expected at least 1")
        code = library.rd_kafka_mock_topic_create(cluster, topic.encode(), partitions, 1)
        if code:
            raise K2Error(f"embedded broker: topic {topic} with {partitions} partitions: librdkafka error {code}")
    return library.rd_kafka_mock_cluster_bootstraps(cluster).decode(), library


def _library() -> ctypes.CDLL:
    """The C library the Python client itself runs on, found through the client's own extension module.

    Raises AttributeError where it lacks the mock cluster, OSError where it cannot be loaded.
    """
    library = ctypes.CDLL(cimpl.__file__)
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "rd_kafka_conf_new": (pointer, []),
        "rd_kafka_conf_set": (number, [pointer, text, text, text, ctypes.c_size_t]),
        "rd_kafka_new": (pointer, [number, pointer, text, ctypes.c_size_t]),
        "rd_kafka_mock_cluster_new": (pointer, [pointer, number]),
        "rd_kafka_mock_topic_create": (number, [pointer, text, number, number]),
        "rd_kafka_mock_cluster_bootstraps": (text, [pointer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _produce_incarnation(bootstrap: str, incarnation: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "acks": "all"})
    producer.produce(INCARNATION_TOPIC, incarnation.encode())
    if producer.flush(_ANSWER_SECONDS):
        raise Unreachable(f"embedded broker: {bootstrap} did not take its incarnation in {_ANSWER_SECONDS:.0f} s")


def _record_watermarks(admin: AdminClient, incarnation: str, home: Path) -> None:
    """Write how far each Kafka partition went: what a later incarnation calls lost, at least up to there."""
    high: dict[str, dict[str, int]] = {}
    try:
        topics = admin.list_topics(timeout=_ANSWER_SECONDS).topics
        asked = {TopicPartition(topic, p): _LATEST for topic, known in topics.items() for p in known.partitions}
        for at, answer in admin.list_offsets(asked, request_timeout=_ANSWER_SECONDS).items():
            high.setdefault(at.topic, {})[str(at.partition)] = answer.result().offset
    except KafkaException as error:
        log.warning("watermarks not read; the file keeps the last ones", reason=str(error))
        return
    content = {"incarnation": incarnation, "written_at": clock.now().isoformat(), "high": high}
    _write(watermarks_file(home), content)


def _keep_watermarks(home: Path) -> None:
    """Put aside how far the broker before this one went: its adoption says from it what was lost."""
    file = watermarks_file(home)
    try:
        before = json.loads(file.read_text())["incarnation"]
    except (FileNotFoundError, ValueError, KeyError):
        return
    file.replace(file.with_name(f"watermarks.{before}.json"))
    kept = sorted(file.parent.glob("watermarks.*.json"), key=lambda old: old.stat().st_mtime)
    for old in kept[:-_WATERMARKS_KEPT]:
        old.unlink()


def _write(file: Path, content: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(content))
    unfinished.replace(file)


if __name__ == "__main__":
    telemetry.configure("broker")
    run({name: int(count) for name, _, count in (a.rpartition("=") for a in sys.argv[2:])}, Path(sys.argv[1]))

"""One Apache Kafka node in KRaft mode: broker and controller in one Java process, on loopback."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec, TopicMetadata

from k2_cli.services import is_free
from k2_tests.kafka_server.maven import Artifact, Unavailable, cache, java, resolve

KAFKA_VERSION = "4.3.1"
_ARTIFACTS = (
    Artifact("org.apache.kafka", "kafka_2.13", KAFKA_VERSION),
    # kafka pulls slf4j 1.7 and log4j-core, but nothing that joins them
    Artifact("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.4"),
)
_PORTS = range(20_000, 32_000)
"""Below the ports the kernel gives to outgoing connections: one of those could take a stopped server's port, and a
client that knocks at an unused port of that range may even end up talking to itself."""
_STARTS_MAX = 3
"""Another process may take a port between our look and the server's."""
_START_SECONDS_MAX = 90.0
_STOP_SECONDS_MAX = 30.0
_POLL_SECONDS = 0.1
_ANSWER_SECONDS = 10.0
_LOG_TAIL_CHARACTERS = 2_000
QUICK = ("-Xms128m", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""Starts in half the CPU time of the defaults: what a test needs. A measurement leaves the compiler alone."""

_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    "num.network.threads": 2,
    "num.io.threads": 2,
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 4,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 4,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "group.initial.rebalance.delay.ms": 0,
    # a node killed and started again is taken for the old one until its session ends
    "broker.heartbeat.interval.ms": 250,
    "broker.session.timeout.ms": 2_000,
    # compaction is looked for twice a second instead of every 15 s
    "log.cleaner.backoff.ms": 500,
}
_LOGGING = """\
Configuration:
  status: WARN
  Appenders:
    Console:
      name: STDOUT
      PatternLayout: {pattern: "[%d] %p %m (%c)%n"}
  Loggers:
    Root:
      level: WARN
      AppenderRef: {ref: STDOUT}
"""


def kafka_jars() -> Path:
    """The folder with Apache Kafka's jars: K2_TEST_KAFKA_JARS, or resolved by Maven into the cache.

    Raises Unavailable.
    """
    given = os.environ.get("K2_TEST_KAFKA_JARS")
    if given is None:
        return resolve(cache() / f"kafka-{KAFKA_VERSION}", _ARTIFACTS)
    if not any(Path(given).glob("kafka_2.13-*.jar")):
        raise Unavailable(f"K2_TEST_KAFKA_JARS={given} holds no kafka_2.13 jar")
    return Path(given)


class KafkaServer:
    """A server with its data on one folder; it may be stopped, killed and started again on the same data and ports."""

    def __init__(self, home: Path, *, options: Sequence[str] = QUICK, **properties: object) -> None:
        """options: for the Java machine. properties: of the broker, dots written as underscores. Raises Unavailable."""
        self.home = home
        self._java = [java(), *options, "-Djava.net.preferIPv4Stack=true"]
        self._classpath = ["-cp", f"{kafka_jars()}/*"]
        self._properties = {**_PROPERTIES, **{name.replace("_", "."): value for name, value in properties.items()}}
        self._child: subprocess.Popen[bytes] | None = None
        self._admin: AdminClient | None = None
        # the kernel ties a child to the thread that started it, and a test may start the server from a passing one
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="kafka-starter")
        self.bootstrap = ""
        home.mkdir(parents=True, exist_ok=True)
        (home / "log4j2.yaml").write_text(_LOGGING)

    @property
    def admin(self) -> AdminClient:
        """A client for administration; the server must have been created."""
        assert self._admin is not None, "the server is not created"
        return self._admin

    @property
    def pid(self) -> int:
        """Process id of the server, which must be running."""
        assert self._child is not None, "the server is not running"
        return self._child.pid

    def create(self) -> None:
        """Format an empty data folder and start, on ports that are free. Raises RuntimeError."""
        for attempt in range(_STARTS_MAX):
            self._format(self.home / f"data-{attempt}")
            try:
                self.start()
                break
            except RuntimeError:
                self.kill()
                if attempt + 1 == _STARTS_MAX or "Address already in use" not in self._log():
                    raise

    def start(self) -> None:
        """Start on the data and ports there are, and wait until it answers. Raises RuntimeError."""
        with (self.home / "server.log").open("ab") as log:
            command = [*self._java, f"-Dlog4j2.configurationFile={self.home / 'log4j2.yaml'}", *self._classpath]
            command += ["kafka.Kafka", str(self.home / "server.properties")]
            # tied to this process: a test run that is killed leaves no server behind
            tied = [sys.executable, "-m", "k2_resources.tether", "exec", str(os.getpid()), *command]
            files = {"stdout": log, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
            self._child = self._starter.submit(subprocess.Popen, tied, **files).result()
        deadline = time.monotonic() + _START_SECONDS_MAX
        while not self._is_ready():
            if self._child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"kafka is not ready, exit code {self._child.poll()}: {self._log()}")
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """End it as an operator would."""
        if self._child is None:
            return
        self._child.terminate()
        try:
            self._child.wait(_STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child = None

    def kill(self) -> None:
        """End it as a power cut would: kill -9."""
        if self._child is not None:
            self._child.send_signal(signal.SIGKILL)
            self._child.wait()
            self._child = None

    def create_topic(self, topic: str, partitions: int, config: Mapping[str, str] | None = None) -> None:
        """Create a topic and wait until every partition of it can be used."""
        new = NewTopic(topic, partitions, 1, config=dict(config or {}))
        deadline = time.monotonic() + _START_SECONDS_MAX
        while True:
            try:
                self.admin.create_topics([new])[topic].result(_ANSWER_SECONDS)
                break
            except KafkaException as error:
                # a topic of this name that was just deleted may still be on its way out
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS or time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_SECONDS)
        self.await_partitions(topic, partitions)

    def await_partitions(self, topic: str, partitions: int) -> None:
        """Wait until a topic has so many partitions, each with a leader."""
        deadline = time.monotonic() + _START_SECONDS_MAX
        while time.monotonic() < deadline:
            with contextlib.suppress(KafkaException):
                known = self.admin.list_topics(timeout=_ANSWER_SECONDS).topics.get(topic)
                if known and len(known.partitions) == partitions and self._leads([known]):
                    return
            time.sleep(_POLL_SECONDS)
        raise RuntimeError(f"{topic} has not {partitions} partitions with leaders: {self._log()}")

    def _format(self, data: Path) -> None:
        broker, controller = free_port(), free_port()
        listeners = f"PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}"
        properties = {
            **self._properties,
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
            "listeners": listeners,
            "advertised.listeners": listeners,
            "log.dirs": data,
        }
        file = self.home / "server.properties"
        file.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
        cluster = self._storage_tool("random-uuid").strip().splitlines()[-1]
        self._storage_tool("format", "--standalone", "-t", cluster, "-c", str(file))
        self.bootstrap = f"127.0.0.1:{broker}"
        client = {"log_level": 0, "reconnect.backoff.max.ms": 250}
        self._admin = AdminClient({"bootstrap.servers": self.bootstrap, **client})

    def _storage_tool(self, *arguments: str) -> str:
        command = [*self._java, *self._classpath, "kafka.tools.StorageTool", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=_START_SECONDS_MAX).stdout

    def _is_ready(self) -> bool:
        with contextlib.suppress(KafkaException):
            found = self.admin.list_topics(timeout=1.0)
            return bool(found.brokers) and self._leads(found.topics.values())
        return False

    def _leads(self, topics: Iterable[TopicMetadata]) -> bool:
        """Whether the server answers for every partition: metadata names a leader before it knows itself as one."""
        partitions = [TopicPartition(topic.topic, p) for topic in topics for p in topic.partitions]
        asked = dict.fromkeys(partitions, OffsetSpec.latest())
        if asked:
            for answer in self.admin.list_offsets(asked, request_timeout=_ANSWER_SECONDS).values():
                answer.result()
        return True

    def _log(self) -> str:
        return (self.home / "server.log").read_text(errors="replace")[-_LOG_TAIL_CHARACTERS:]


def free_port() -> int:
    """A loopback port nobody listens on now, and no outgoing connection will be given."""
    while not is_free(port := random.choice(_PORTS)):
        pass
    return port

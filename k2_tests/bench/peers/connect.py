"""Iceberg's Kafka Connect sink on a standalone Connect worker with two tasks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow as pa

from k2_tests.bench.peers.ground import CATALOG, IDENTIFIER, Ground, Started, columns, make_table
from k2_tests.kafka_server.maven import Artifact, cache, java, resolve
from k2_tests.kafka_server.server import KAFKA_VERSION, KafkaServer, free_port

ICEBERG_VERSION = "1.12.0"
CONTROL_TOPIC = "control-iceberg"
_COMMIT_MILLISECONDS = 2_000
"""Several commits a run, so that there is a rate between the first and the last; its own default is five minutes."""
_ARTIFACTS = (
    *(
        Artifact("org.apache.kafka", name, KAFKA_VERSION)
        for name in ("connect-runtime", "connect-json", "connect-transforms", "kafka-clients")
    ),
    *(Artifact("org.apache.iceberg", name, ICEBERG_VERSION) for name in ("iceberg-kafka-connect", "iceberg-parquet")),
    *(Artifact("org.apache.hadoop", name, "3.4.2") for name in ("hadoop-client-api", "hadoop-client-runtime")),
    Artifact("org.xerial", "sqlite-jdbc", "3.53.4.0"),
    Artifact("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.4"),
    # the only Avro converter for Connect in Maven's central repository
    Artifact("io.apicurio", "apicurio-registry-utils-converter", "2.6.13.Final"),
)


def start(server: KafkaServer, registry_url: str, ground: Ground) -> Started:
    """A worker that never ends by itself. registry_url: of `schema_answers`. Raises Unavailable."""
    jars = resolve(cache() / f"connect-{KAFKA_VERSION}-iceberg-{ICEBERG_VERSION}", _ARTIFACTS)
    # Connect has no microseconds: its converter gives such a field as a plain number
    file = make_table(ground.home / "connect", columns(timestamps=pa.int64()))
    server.create_topic(CONTROL_TOPIC, 1)
    worker = _write(file.parent / "worker.properties", _worker(ground, file.parent))
    sink = _write(file.parent / "sink.properties", _sink(ground, registry_url, file))
    options = ["-Xmx2g", "-Djava.net.preferIPv4Stack=true"]
    options += [f"-Dlog4j2.configurationFile={server.home / 'log4j2.yaml'}", "-cp", f"{jars}/*"]
    main = "org.apache.kafka.connect.cli.ConnectStandalone"
    return Started([java(), *options, main, str(worker), str(sink)], file, ends=False)


@contextmanager
def schema_answers(schema: Mapping[str, Any]) -> Iterator[str]:
    """Answer the one question Apicurio's converter asks: the content of an id. Gives the address of its API."""
    answers = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Answer, json.dumps(schema).encode()))
    Thread(target=answers.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{answers.server_port}/apis/registry/v2"
    finally:
        answers.shutdown()
        answers.server_close()


class _Answer(BaseHTTPRequestHandler):
    def __init__(self, schema: bytes, *connection: Any) -> None:
        self._schema = schema
        super().__init__(*connection)

    def do_GET(self) -> None:
        body = b"[]" if self.path.rstrip("/").endswith("references") else self._schema
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the bench prints its own lines."""


def _worker(ground: Ground, home: Path) -> dict[str, object]:
    return {
        "bootstrap.servers": ground.bootstrap,
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        "value.converter.schemas.enable": "false",
        "offset.storage.file.filename": home / "offsets",
        "listeners": f"http://127.0.0.1:{free_port()}",
        "plugin.discovery": "only_scan",
        "consumer.fetch.max.bytes": 32 << 20,
        "consumer.max.partition.fetch.bytes": 8 << 20,
        "consumer.max.poll.records": 10_000,
    }


def _sink(ground: Ground, registry_url: str, file: Path) -> dict[str, object]:
    converter = "value.converter"
    return {
        "name": "peer",
        "connector.class": "org.apache.iceberg.connect.IcebergSinkConnector",
        "tasks.max": 2,
        "topics": ground.topic,
        "iceberg.catalog": CATALOG,
        "iceberg.catalog.type": "jdbc",
        "iceberg.catalog.uri": f"jdbc:sqlite:{file}",
        "iceberg.catalog.jdbc.schema-version": "V1",
        "iceberg.catalog.warehouse": f"file://{file.parent / 'warehouse'}",
        "iceberg.tables": IDENTIFIER,
        "iceberg.control.topic": CONTROL_TOPIC,
        "iceberg.control.commit.interval-ms": _COMMIT_MILLISECONDS,
        "iceberg.control.commit.timeout-ms": 30_000,
        converter: "io.apicurio.registry.utils.converter.AvroConverter",
        f"{converter}.apicurio.registry.url": registry_url,
        f"{converter}.apicurio.registry.as-confluent": "true",
        f"{converter}.apicurio.registry.use-id": "contentId",
        "consumer.override.auto.offset.reset": "earliest",
    }


def _write(file: Path, properties: Mapping[str, object]) -> Path:
    file.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    return file

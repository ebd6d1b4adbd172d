"""`python -m k2_tests.bench.peers [--records N] [--json FILE] [--peers k2,spark,connect,fastavro,confluent]`.

The same seeded trades in one topic of a real Apache Kafka (eight Kafka partitions, lz4), brought into an Iceberg table
by K2 and by others, one after the other, each with a catalog of its own. Jars come by Maven and PySpark by pip, both
kept in the cache; a peer that cannot be had is skipped with the reason.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from k2_core.avro import avro_schema
from k2_core.contracts import TRADES
from k2_resources.registry import Registry
from k2_tests.bench.peers import connect, k2, plain, spark
from k2_tests.bench.peers.ground import Ground, Started
from k2_tests.bench.peers.race import Failed, Result, race
from k2_tests.bench.peers.report import machine, ratio_text, ratios, text
from k2_tests.bench.workload import produce
from k2_tests.conftest import free_port, start_registry, stop
from k2_tests.kafka_server import KafkaServer, Unavailable
from k2_tests.ticks import FEEDS

PEERS = ("k2", "spark", "connect", "fastavro", "confluent")
_FEED = FEEDS["binance-trades"]
_PARTITIONS = 8
_PRODUCE_SECONDS_MAX = 900.0
_PEER_SECONDS_BASE, _PEER_SECONDS_PER_RECORD = 240.0, 1 / 8_000
"""The slowest peer brings 20,000 records a second on a quiet machine."""
_BROKER = ("-Xms256m", "-Xmx1g")

Start = Callable[[Ground], Started]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=2_000_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--keep", type=Path, help="an empty folder for everything the run leaves; default: none kept")
    asked = parser.parse_args()
    peers = asked.peers.split(",")
    if unknown := set(peers) - set(PEERS):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    try:
        run(peers, asked.records, asked.json, asked.keep)
    except Unavailable as missing:
        parser.exit(2, f"no real Apache Kafka here: {missing}\n")


def run(peers: list[str], records: int, to: Path | None, keep: Path | None) -> None:
    """Measure the peers in order and print what came out. Raises Unavailable without a broker."""
    told, results, skipped = machine(), dict[str, Result](), dict[str, str]()
    with ExitStack() as opened:
        home = keep or Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="k2-peers-")))
        home.mkdir(exist_ok=True)
        ground, starts = opened.enter_context(_ground(home.resolve(), records))
        seconds_max = _PEER_SECONDS_BASE + records * _PEER_SECONDS_PER_RECORD
        for peer in peers:
            try:
                log = ground.home / f"{peer}.log"
                results[peer] = race(peer, starts[peer](ground), records, seconds_max=seconds_max, log=log)
                print(f"{peer}: {results[peer].records_per_second:,.0f} records a second", flush=True)
            except (Unavailable, Failed) as reason:
                skipped[peer] = str(reason)
                print(f"{peer}: {reason}", flush=True)
    compared = ratios(results)
    print("\n" + text(told, results.values(), skipped), *map(ratio_text, compared), sep="\n")
    if to is not None:
        figures = {peer: result.to_dict() for peer, result in results.items()}
        document = {"machine": told, "results": figures, "ratios": compared, "skipped": skipped}
        to.write_text(json.dumps(document, indent=2) + "\n")


@contextmanager
def _ground(home: Path, records: int) -> Iterator[tuple[Ground, Mapping[str, Start]]]:
    """Broker, registry and records; and how each peer is started on them."""
    server, port = KafkaServer(home / "kafka", options=_BROKER), free_port()
    registry = start_registry(home / "registry", port)
    try:
        server.create()
        server.create_topic(_FEED.topic, _PARTITIONS)
        url, schema = f"http://127.0.0.1:{port}", avro_schema(TRADES)
        with closing(Registry(url)) as client:
            schema_id = client.register(_FEED.subject, schema)
        _fill(server.bootstrap, schema_id, records)
        ground = Ground(server.bootstrap, _FEED.topic, _PARTITIONS, records, schema, schema_id, url, home)
        with connect.schema_answers(schema) as answers:
            plains: dict[str, Start] = {name: partial(plain.start, name) for name in ("fastavro", "confluent")}
            yield (
                ground,
                {"k2": k2.start, "spark": spark.start, "connect": partial(connect.start, server, answers)} | plains,
            )
    finally:
        server.stop()
        stop(registry)


def _fill(bootstrap: str, schema_id: int, records: int) -> None:
    """Produce the records from a process of its own: it would leave this one large and its garbage behind."""
    told = (bootstrap, _FEED.topic, schema_id, records, _PARTITIONS)
    sender = get_context("spawn").Process(target=produce, args=told)
    sender.start()
    sender.join(_PRODUCE_SECONDS_MAX)
    if sender.exitcode != 0:
        sender.kill()
        raise RuntimeError(f"the records were not produced: exit code {sender.exitcode}")


if __name__ == "__main__":
    main()

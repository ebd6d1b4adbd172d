"""Spark Structured Streaming with Iceberg, in an environment of its own, kept in the cache."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from k2_tests.bench.peers.ground import CATALOG, IDENTIFIER, Ground, Started, columns, make_table
from k2_tests.kafka_server.maven import Artifact, Unavailable, cache, java, resolve

SPARK_VERSION, ICEBERG_VERSION = "4.1.1", "1.12.0"
_ARTIFACTS = (
    Artifact(
        "org.apache.spark",
        "spark-sql-kafka-0-10_2.13",
        SPARK_VERSION,
        ("org.apache.hadoop:*", "org.apache.spark:spark-token-provider-kafka-0-10_2.13"),
    ),
    # 4.1.1 of this one asks for a Hadoop client that is not published
    Artifact("org.apache.spark", "spark-token-provider-kafka-0-10_2.13", "4.0.0", ("*:*",)),
    Artifact("org.apache.spark", "spark-avro_2.13", SPARK_VERSION),
    Artifact("org.apache.iceberg", "iceberg-spark-runtime-4.1_2.13", ICEBERG_VERSION),
    Artifact("org.xerial", "sqlite-jdbc", "3.53.4.0"),
)
_BATCHES = 6
"""The first warms up; the others are measured. Larger batches were no faster."""
_INSTALL_SECONDS_MAX = 900.0
_JOB = Path(__file__).with_name("spark_job.py")


def start(ground: Ground) -> Started:
    """A streaming query over everything that waits, two cores, three gigabytes. Raises Unavailable."""
    java()
    python = _environment()
    jars = resolve(cache() / f"spark-{SPARK_VERSION}-iceberg-{ICEBERG_VERSION}", _ARTIFACTS)
    file = make_table(ground.home / "spark", columns(), daily=True)
    told = {
        "bootstrap": ground.bootstrap,
        "topic": ground.topic,
        "records_per_batch": -(-ground.records // _BATCHES),
        "schema": json.dumps(ground.schema),
        "jars": ",".join(str(jar) for jar in _missing(jars, python)),
        "catalog": CATALOG,
        "catalog_uri": f"jdbc:sqlite:{file}",
        "warehouse": f"file://{file.parent / 'warehouse'}",
        "table": f"{CATALOG}.{IDENTIFIER}",
        "checkpoint": str(file.parent / "checkpoint"),
        "local": str(file.parent / "local"),
    }
    return Started([str(python), str(_JOB), json.dumps(told)], file)


def _environment() -> Path:
    """The Python of an environment with PySpark. Raises Unavailable."""
    folder = cache() / f"pyspark-{SPARK_VERSION}"
    python, made = folder / "bin" / "python", folder / "made"
    if made.exists():
        return python
    install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", f"pyspark=={SPARK_VERSION}"]
    try:
        for command in ([sys.executable, "-m", "venv", "--clear", str(folder)], install):
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_INSTALL_SECONDS_MAX)
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"pyspark {SPARK_VERSION} cannot be installed: {error.stderr[-300:]}") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"pyspark {SPARK_VERSION} was not installed in {_INSTALL_SECONDS_MAX:.0f} s") from None
    made.touch()
    return python


def _missing(jars: Path, python: Path) -> list[Path]:
    """The jars that PySpark does not bring itself: two of one kind quarrel."""
    own = next(python.parents[1].glob("lib/python*/site-packages/pyspark/jars"))
    known = {_artifact(jar) for jar in own.glob("*.jar")}
    return [jar for jar in sorted(jars.glob("*.jar")) if _artifact(jar) not in known]


def _artifact(jar: Path) -> str:
    return re.sub(r"-\d+\.[\d.]*.*$", "", jar.stem)

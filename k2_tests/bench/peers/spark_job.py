"""The streaming query of the Spark peer. Runs in an environment with PySpark and without K2."""

from __future__ import annotations

import json
import sys

from pyspark.sql import SparkSession
from pyspark.sql import functions as f
from pyspark.sql.avro.functions import from_avro

_FRAME_BYTES = 5


def main(told: dict[str, str]) -> None:
    """Read what waits, decode, append; one Iceberg commit a batch."""
    spark = _session(told)
    kafka = {
        "kafka.bootstrap.servers": told["bootstrap"],
        "subscribe": told["topic"],
        "startingOffsets": "earliest",
        "failOnDataLoss": "true",
        "maxOffsetsPerTrigger": str(told["records_per_batch"]),
        "kafka.max.partition.fetch.bytes": "8388608",
        "kafka.fetch.max.bytes": "33554432",
        "kafka.max.poll.records": "10000",
    }
    body = f.expr(f"substring(value, {_FRAME_BYTES + 1}, length(value) - {_FRAME_BYTES})")
    read = spark.readStream.format("kafka").options(**kafka).load()
    rows = read.select(from_avro(body, told["schema"], {"mode": "FAILFAST"}).alias("t")).select("t.*")
    write = rows.writeStream.format("iceberg").outputMode("append").trigger(availableNow=True)
    write = write.option("checkpointLocation", told["checkpoint"]).option("fanout-enabled", "true")
    write.toTable(told["table"]).awaitTermination()


def _session(told: dict[str, str]) -> SparkSession:
    name = f"spark.sql.catalog.{told['catalog']}"
    config = {
        "spark.jars": told["jars"],
        "spark.driver.memory": "3g",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.local.dir": told["local"],
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        name: "org.apache.iceberg.spark.SparkCatalog",
        f"{name}.type": "jdbc",
        f"{name}.uri": told["catalog_uri"],
        f"{name}.jdbc.schema-version": "V1",
        f"{name}.warehouse": told["warehouse"],
    }
    builder = SparkSession.builder.master("local[2]").appName("peer")
    for key, value in config.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("WARN")
    return session


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

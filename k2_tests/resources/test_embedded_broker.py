from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest

from k2_resources.embedded_broker import INCARNATION_TOPIC, broker_file, embedded_broker, watermarks_file
from k2_resources.kafka import KafkaLog, LogWriter

START_SECONDS_MAX = 30.0


def eventually(condition, seconds=START_SECONDS_MAX):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.05)


def test_each_topic_has_the_kafka_partitions_asked_for():
    with embedded_broker({"a.b": 8, "c": 1}) as bootstrap:
        known = KafkaLog(bootstrap).watermarks(["a.b", "c", INCARNATION_TOPIC])
        assert sorted(known) == [*(("a.b", p) for p in range(8)), ("c", 0), (INCARNATION_TOPIC, 0)]


def test_two_brokers_have_different_incarnations():
    with embedded_broker({"t": 1}) as first, embedded_broker({"t": 1}) as second:
        incarnations = [KafkaLog(bootstrap).incarnation(["t"])["t"].cluster_id for bootstrap in (first, second)]
    assert uuid.UUID(incarnations[0]) != uuid.UUID(incarnations[1])


def test_what_it_writes_when_ready_is_what_its_topic_says(tmp_path: Path):
    with embedded_broker({"t": 1}, tmp_path) as bootstrap:
        ready = json.loads(broker_file(tmp_path).read_text())
        assert ready["bootstrap"] == bootstrap
        assert ready["incarnation"] == KafkaLog(bootstrap).incarnation(["t"])["t"].cluster_id


def test_watermarks_on_disk_follow_the_log_and_outlive_the_broker(tmp_path: Path):
    with embedded_broker({"t": 2}, tmp_path) as bootstrap:
        with LogWriter(bootstrap) as writer:
            for i in range(100):
                writer.send("t", b"%d" % i, b"value")
        delivered = {str(partition): at for (_, partition), at in writer.delivered_offsets.items()}
    written = json.loads(watermarks_file(tmp_path).read_text())
    assert written["high"]["t"] == delivered
    assert written["incarnation"] == json.loads(broker_file(tmp_path).read_text())["incarnation"]


def test_it_ends_cleanly_on_sigterm(tmp_path: Path):
    command = [sys.executable, "-m", "k2_resources.embedded_broker", str(tmp_path), "t=1"]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    eventually(broker_file(tmp_path).exists)
    child.send_signal(signal.SIGTERM)
    assert child.wait(START_SECONDS_MAX) == 0


def test_it_ends_when_its_parent_is_killed(tmp_path: Path):
    parent = "import subprocess, sys; subprocess.Popen([sys.executable, '-m', 'k2_resources.embedded_broker', sys.argv[1], 't=1']).wait()"
    child = subprocess.Popen(
        [sys.executable, "-c", parent, str(tmp_path)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    eventually(broker_file(tmp_path).exists)
    broker = psutil.Process(json.loads(broker_file(tmp_path).read_text())["pid"])
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    eventually(lambda: not broker.is_running() or broker.status() == psutil.STATUS_ZOMBIE)


def test_a_topic_without_partitions_is_refused(tmp_path: Path):
    command = [sys.executable, "-m", "k2_resources.embedded_broker", str(tmp_path), "t=0"]
    child = subprocess.run(command, capture_output=True, timeout=START_SECONDS_MAX, check=False)
    assert child.returncode != 0
    assert b"topic t with 0 Kafka partitions" in child.stderr


def test_without_the_c_functions_topics_still_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from k2_resources import embedded_broker as module

    monkeypatch.setattr(module.cimpl, "__file__", str(tmp_path / "missing.so"))
    bootstrap, _keep = module._start({"t": 8})
    assert sorted(KafkaLog(bootstrap).watermarks(["t"])) == [("t", p) for p in range(module.FALLBACK_PARTITIONS)]

"""Servers every test may share: started once a session, real, on loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from k2_cli.services import answers
from k2_cli.services import any_free as free_port
from k2_resources.embedded_broker import embedded_broker
from k2_resources.settings import Settings, load_feeds

# machines are shared and noisy: how long an example takes says nothing about it
hypothesis.settings.register_profile("k2", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("k2")

LONGEST = (
    "test_real_data",
    "test_recovery",
    "test_real_kafka",
    "test_kill_harness",
    "test_simulation",
    "test_gap_day",
    "test_sink_schedules",
    "test_run_kills",
    "test_launcher",
    "test_answers_soak",
    "test_feed_soak",
    "test_answers",
    "test_fuzz",
    "test_verify",
    "test_order_independence",
    "test_retention",
)
"""Files of more than half a minute, the longest first: begun last, one would run on while the other worker is idle."""

MEMORY, MEMORY_BYTES_MIN = Path("/dev/shm"), 4 << 30
"""A file system in memory, and the room on it that a whole session of tests may need."""

START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 10.0


def pytest_configure() -> None:
    """Keep the tests' files in memory where there is room: a kill leaves the same behind, and no fsync waits for a disk."""
    if "TMPDIR" not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES_MIN:
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; the workers take whole files in the order of their first test."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    """Bootstrap address of an embedded broker with the topics of config/feeds.yaml, shared by the session.

    Its topics and incarnation outlive a test. Who needs topics of his own: `with embedded_broker({...}) as bootstrap`.
    """
    topics = {feed.topic: feed.kafka_partitions for feed in load_feeds(Settings())}
    with embedded_broker(topics) as bootstrap:
        yield bootstrap


@pytest.fixture(scope="session")
def registry_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an embedded schema registry, shared by the session: use subjects of your own."""
    home, port = tmp_path_factory.mktemp("registry"), free_port()
    child = start_registry(home, port)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(child)


def start_registry(home: Path, port: int) -> subprocess.Popen[bytes]:
    """Start a registry on a home and wait until it answers."""
    command = [sys.executable, "-m", "k2_resources.registry_server", str(home), str(port)]
    child = subprocess.Popen(command)
    deadline = time.monotonic() + START_SECONDS_MAX
    while child.poll() is None and time.monotonic() < deadline:
        if answers(f"http://127.0.0.1:{port}/subjects"):
            return child
        time.sleep(0.02)
    stop(child)
    raise RuntimeError(f"registry on {home}: not ready, exit code {child.returncode}")


def stop(child: subprocess.Popen[bytes]) -> None:
    """End a child process, by force when it does not listen."""
    child.terminate()
    try:
        child.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()

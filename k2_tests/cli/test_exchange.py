from __future__ import annotations

import json
import signal
import subprocess
import sys

import httpx2 as httpx
import pytest
from click.testing import CliRunner
from websockets.sync.client import connect

from k2_cli.main import main

COMMAND = [sys.executable, "-m", "k2_cli.main", "exchange"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_exchange_prints_its_urls_serves_them_and_ends_when_asked(number):
    options = ["--json", "--speed", "20", "--symbols", "AAAUSDT", "BBBUSDT", "--faults", "rest_5xx", "drop,count=3"]
    child = subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        urls = json.loads(child.stdout.readline())
        assert httpx.get(f"{urls['rest']}/api/v3/ping", trust_env=False, timeout=30).status_code == 500
        assert httpx.get(urls["control"], trust_env=False, timeout=30).json()["paused"] is False
        with connect(f"{urls['websocket']}/ws/bbbusdt@trade", proxy=None) as client:
            assert json.loads(client.recv(timeout=30))["s"] == "BBBUSDT"
            child.send_signal(number)
            assert child.wait(30) == 0
        assert "trades published" in child.stderr.read()
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--faults", "explode"], "BAD_INPUT: fault"), (["--speed", "0"], "BAD_INPUT: speed"),
     (["--speed", "fast"], "neither a number nor max"), (["--time-factor", "0"], "BAD_INPUT: time factor")],
)  # fmt: skip
def test_what_makes_no_exchange_is_refused_with_a_reason(options, said):
    result = CliRunner().invoke(main, ["exchange", *options])
    assert result.exit_code == 2
    assert said in result.stderr

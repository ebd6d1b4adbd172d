from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2 as httpx

COMMAND = [sys.executable, "-c", "from k2_cli.serve import serve; serve()"]


def test_serve_takes_a_free_port_says_which_and_stops_on_ctrl_c(tmp_path: Path) -> None:
    home = tmp_path / "a home"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        child = subprocess.Popen(
            [*COMMAND, "--port", str(port), "--home", str(home)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert child.stdout is not None
            said = child.stdout.readline()
            found = re.match(r"API (http://127\.0\.0\.1:(\d+))  docs \S+/docs  key (.+)\n", said)
            assert found is not None, said
            assert int(found[2]) != port
            key = Path(found[3]).read_text().strip()
            answer = httpx.get(f"{found[1]}/v1/trades", headers={"X-API-Key": key}, trust_env=False)
            assert answer.json()["data"] == []
            child.send_signal(signal.SIGINT)
            assert child.wait(20) == 0
        finally:
            child.kill()
            child.wait()
            if child.stdout:
                child.stdout.close()

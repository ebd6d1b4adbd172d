"""No key, cursor key or password is found where it does not belong: logs, answers, files, command lines."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from k2_api.app import create_app
from k2_api.keys import create_key, digest_of
from k2_tests.api.homes import serving, settings_of
from k2_tests.api.sockets import answers, head

WRONG = "a-wrong-key-somebody-typed"
COMMAND = [sys.executable, "-m", "k2_cli.main", "serve", "--port", "0"]


def ask_in_every_way(client: httpx.Client, secret: str) -> list[httpx.Response]:
    """Bring a secret wherever a client could put it."""
    bearer = {"Authorization": f"Bearer {secret}", "X-API-Key": ""}
    page = client.get("/v1/trades?limit=1").json()
    cursor = (page.get("pagination") or {}).get("next_cursor") or "x"
    return [
        client.get("/v1/symbols", headers={"X-API-Key": secret}),
        client.get("/v1/symbols", headers=bearer),
        client.get("/v1/symbols", params={"api_key": secret, "exchange": secret}),
        client.get("/v1/trades", params={"cursor": secret}),
        client.get("/v1/trades", params={"cursor": f"{cursor}{secret}"}),
        client.get("/v1/trades", params={"limit": secret, "start_time": secret, "order": secret}),
        client.get("/v1/fails", headers=bearer, params={"key": secret}),
        client.get("/v1/symbols", headers={"X-Correlation-ID": "desk-7", "Cookie": f"key={secret}"}),
        client.post("/v1/symbols", content=secret, headers={"Content-Type": "application/json"}),
    ]


def test_no_log_and_no_answer_holds_a_key(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(tmp_path)
    _, made = create_key(settings.api_keys_file, "desk", ["read"])
    app = create_app(settings)

    def fails(key: str) -> None:
        raise RuntimeError("the cause")

    app.add_api_route("/v1/fails", fails)
    with caplog.at_level(logging.DEBUG), serving(settings, app) as client:
        secrets = [client.headers["X-API-Key"], made, WRONG]
        found = [answer for secret in secrets for answer in ask_in_every_way(client, secret)]
        answers(client, b"rubbish " + made.encode() + b"\r\n\r\n")
        answers(client, head(client, "X: " + "x" * 70_000))
    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    said = "\n".join(map(logging.Formatter("%(name)s %(message)s").format, ours)) + "".join(capfd.readouterr())
    assert "the cause" in said and "/v1/fails failed" in said, "what is looked through is the log"
    assert {200, 400, 403, 422, 500} <= {answer.status_code for answer in found}
    cursor_key = (settings.home / "cursor.key").read_text().strip()
    for secret in (*secrets[:2], cursor_key, digest_of(made)):
        assert secret not in said
    assert WRONG not in said
    told = [f"{answer.text}{answer.headers}" for answer in found]
    assert not [answer for answer in told for secret in secrets if secret in answer]


def test_a_defect_is_told_with_an_id_to_ask_about_and_nothing_else(tmp_path: Path) -> None:
    app = create_app(settings := settings_of(tmp_path))

    def fails() -> None:
        raise RuntimeError("SELECT secret FROM /srv/lake/file.parquet")

    app.add_api_route("/v1/fails", fails)
    with serving(settings, app) as client:
        told = client.get("/v1/fails", headers={"X-Correlation-ID": "desk-7"})
    assert (told.status_code, told.json()["code"], told.json()["request_id"]) == (500, "INTERNAL_ERROR", "desk-7")
    assert not re.search(r"SELECT|srv|parquet|Runtime|Traceback", told.text + str(told.headers))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A home after `k2 serve` was asked in every way and stopped, and all it has written."""
    home, log = tmp_path_factory.mktemp("served"), tmp_path_factory.mktemp("log") / "said"
    settings = settings_of(home)
    _, made = create_key(settings.api_keys_file, "desk", ["read"])
    unlimited = {"K2_API_RATE_PER_MINUTE": "0", "K2_LIVE_PROXY": "http://user:proxy-password@127.0.0.1:1"}
    with log.open("w") as target:
        child = subprocess.Popen(
            [*COMMAND, "--home", str(home)],
            stdout=subprocess.PIPE, stderr=target, text=True, env={**os.environ, **unlimited},
        )  # fmt: skip
        try:
            assert child.stdout is not None
            said = child.stdout.readline()
            url = said.split()[1]
            key = settings.api_key_file.read_text().strip()
            with httpx.Client(base_url=url, headers={"X-API-Key": key}, trust_env=False, timeout=60) as client:
                for secret in (key, made, WRONG):
                    ask_in_every_way(client, secret)
                client.get("/health")
                client.get("/metrics")
            command_line = Path(f"/proc/{child.pid}/cmdline")
            said += command_line.read_text() if command_line.exists() else ""
            child.send_signal(signal.SIGINT)
            said += child.communicate(timeout=60)[0]
        finally:
            child.kill()
            child.wait()
    return home, f"{said}{log.read_text()}"


def test_the_server_writes_no_secret_anywhere_but_into_the_files_of_secrets(served: tuple[Path, str]) -> None:
    home, said = served
    files = {file: file.read_bytes() for file in home.rglob("*") if file.is_file()}
    kept = {name: (home / name).read_text().strip() for name in ("api.key", "cursor.key")}
    for name, secret in kept.items():
        assert secret not in said
        assert [file.name for file, content in files.items() if secret.encode() in content] == [name]
    assert WRONG not in said and "proxy-password" not in said
    assert not [file for file, content in files.items() if WRONG.encode() in content]


def test_files_of_secrets_are_their_owners_alone(served: tuple[Path, str]) -> None:
    home, _ = served
    for name in ("api.key", "cursor.key", "api-keys.json"):
        assert (home / name).stat().st_mode & 0o777 == 0o600, name

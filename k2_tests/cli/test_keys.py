from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from k2_api.keys import KeyRing
from k2_cli.keys import keys
from k2_core.errors import NotFound


def run(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(keys, [*arguments, "--home", str(home)])


def test_a_key_is_made_listed_replaced_and_ended(tmp_path: Path) -> None:
    made = run(tmp_path, "create", "desk", "--scope", "read", "--scope", "admin", "--rate", "7", "--days", "1")
    assert made.exit_code == 0, made.output
    first = made.stdout.strip()
    (told,) = json.loads(run(tmp_path, "list", "--json").stdout)
    assert (told["holder"], told["scopes"], told["state"]) == ("desk", ["read", "admin"], "live")
    assert first.split("_")[1] == told["id"]
    second = json.loads(run(tmp_path, "rotate", "desk", "--json").stdout)["secret"]
    shown = run(tmp_path, "list").stdout
    for secret in (first, second):
        assert secret not in shown
        assert KeyRing(tmp_path / "api.key", tmp_path / "api-keys.json").find(secret) is not None
    assert run(tmp_path, "revoke", "desk").stdout.count("no longer works") == 2
    assert [key["state"] for key in json.loads(run(tmp_path, "list", "--json").stdout)] == ["revoked", "revoked"]
    assert isinstance(run(tmp_path, "revoke", "desk").exception, NotFound)


def test_the_key_of_the_home_is_replaced_in_its_file_and_not_printed(tmp_path: Path) -> None:
    file = tmp_path / "api.key"
    file.write_text("first-secret\n")
    told = run(tmp_path, "rotate", "home", "--keep-hours", "0")
    assert told.exit_code == 0
    assert file.read_text().strip() not in told.output
    ring = KeyRing(file, tmp_path / "api-keys.json")
    assert ring.find("first-secret") is None
    assert ring.find(file.read_text().strip()) is not None

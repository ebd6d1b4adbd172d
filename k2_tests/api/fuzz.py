"""Requests of every shape the OpenAPI document allows, and of those it does not: schemathesis against a served API.

`python -m k2_tests.api.fuzz [--examples N] [--seed N]`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from k2_tests.api.conftest import fill, some_quotes
from k2_tests.api.homes import serving
from k2_tests.api.oracle import random_trades

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
"""What an answer must be, whatever the request: no failure of ours, and nothing but what the document says."""
_SECONDS_MAX = 3600


@dataclass(frozen=True)
class Fuzzed:
    """How it went. said: what schemathesis printed."""

    is_clean: bool
    said: str


def fuzz(url: str, key: str, *, examples: int, seed: int) -> Fuzzed:
    """Ask so many questions of each operation and phase. The same seed asks the same."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"),
        *("--header", f"X-API-Key: {key}"),
        *("--checks", ",".join(CHECKS)),
        *("--phases", "examples,coverage,fuzzing"),
        *("--max-examples", str(examples)),
        *("--seed", str(seed)),
        *("--generation-database", "none"),
        *("--request-timeout", "60"),
        *("--suppress-health-check", "all"),
        *("--generation-with-security-parameters", "false"),
        *("--warnings", "off"),
        "--no-shrink",
        "--no-color",
        "--continue-on-failure",
    ]
    with tempfile.TemporaryDirectory() as scratch:  # it leaves a folder of its own where it runs
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=_SECONDS_MAX, check=False)
    return Fuzzed(done.returncode == 0, done.stdout[-40_000:] + done.stderr[-2_000:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        settings = fill(Path(home) / "k2", random_trades(asked.seed, rows=900), some_quotes())
        with serving(settings) as client:
            found = fuzz(str(client.base_url), client.headers["X-API-Key"], examples=asked.examples, seed=asked.seed)
    print(found.said)
    sys.exit(0 if found.is_clean else 1)


if __name__ == "__main__":
    main()

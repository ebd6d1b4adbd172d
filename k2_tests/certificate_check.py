"""scripts/check_certificate.py as an auditor runs it: on copies of Parquet files, knowing nothing else."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "check_certificate.py"


def checked(capsys: pytest.CaptureFixture[str], days: Path, data: Path, *asked: str) -> tuple[bool, list[str]]:
    """Whether every certificate holds, and what is said of each."""
    before = sys.argv
    sys.argv = [str(SCRIPT), str(days), str(data), *asked]
    capsys.readouterr()
    try:
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(SCRIPT))
    finally:
        sys.argv = before
    return not ended.value.code, capsys.readouterr().out.splitlines()

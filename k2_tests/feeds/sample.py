"""The real files, where this machine has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from k2_resources.settings import Settings


def real(*names: str) -> list[Path]:
    """Paths below the folder of real files; skips the test where one is absent."""
    folder = Settings().sample_data
    paths = [folder / name for name in names]
    absent = [str(path) for path in paths if not path.exists()]
    if absent:
        pytest.skip(
            f"real captures are not beside this checkout: {', '.join(absent)} (K2_SAMPLE_DATA names the folder)"
        )
    return paths

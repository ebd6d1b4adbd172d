"""`python -m k2_resources.registry_server HOME PORT`"""

from __future__ import annotations

import sys
from pathlib import Path

from k2_resources import telemetry
from k2_resources.registry_server.app import serve

telemetry.configure("registry")
serve(Path(sys.argv[1]), int(sys.argv[2]))

"""A supervisor over small services, as a process of its own: `python -m k2_tests.cli.small_stack HOME`.

Each service is a shell that shrugs off SIGTERM and has a child; together they show what a real stack would leave behind.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from k2_resources.supervisor import Launch, Service, Stopping, Supervisor, sole_owner

STUBBORN = "trap '' TERM; echo started; sleep 1000 & echo $! >> {children}; wait; wait"


def main(home: Path) -> None:
    def launch() -> Launch:
        shell = STUBBORN.format(children=f"'{home / 'grandchildren'}'")
        return Launch(("sh", "-c", shell), lambda pid: f"process {pid}")

    def recovered() -> bool:
        (home / "recovered").write_text("yes")
        return True

    def changed(children):
        report = {name: child.process.pid for name, child in children.items() if child.address}
        (home / "new").write_text(json.dumps(report))
        (home / "new").replace(home / "services")

    with sole_owner(home / "lock"):
        supervisor = Supervisor(home / "logs", os.environ, changed)
        signal.signal(signal.SIGTERM, lambda *_: supervisor.stopping.set())
        try:
            supervisor.start(*(Service(name, launch, recovered, stop_seconds=0.2) for name in ("one", "two")))
            supervisor.watch()
        except Stopping:
            pass
        supervisor.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

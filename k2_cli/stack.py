"""`k2 up`: the whole embedded stack under one supervisor, in the foreground."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from k2_resources.settings import Settings
    from k2_resources.supervisor import Child, Supervisor

ADOPT_SECONDS_MAX = 120.0
RUNS_SECONDS_MAX = 30.0
"""How long running runs may finish; one that is cut short is planned again from the lake."""
FAST_LAUNCHER = """
# K2_LAUNCHER=fast: runs are forks of a warm process of the daemon. Without this section, Dagster's own launcher.
run_launcher:
  module: k2_assets.launcher
  class: WarmRunLauncher
"""
"""What `fast` adds to Dagster's instance file."""
DRAIN_SECONDS_MAX = 180.0
"""How long the last ingest may take: producers leave at most a few MiB in the broker."""
SERVICES = {"broker": "kafka", "registry": "registry", "webserver": "dagster", "api": "api"}
"""Service -> its key in the endpoints file."""


@click.command()
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), default=None, help="K2_HOME.")
def up(home: Path | None) -> None:
    """Start broker, registry, Dagster and API; stay until Ctrl-C, which first ingests what was acknowledged."""
    from k2_resources import telemetry
    from k2_resources.settings import Settings
    from k2_resources.supervisor import sole_owner

    settings = Settings(home=home) if home else Settings()
    settings = settings.model_copy(update={"home": settings.home.resolve()})
    with sole_owner(settings.home / "run" / "lock"):
        settings.logs.mkdir(parents=True, exist_ok=True)
        telemetry.configure("supervisor", file=settings.logs / "supervisor.log")
        _end_last_stack(settings)
        _prepare(settings)
        drained = Stack(settings).run()
    sys.exit(0 if drained else 1)


class Stack:
    """The embedded stack of one home, from first start to drained stop."""

    def __init__(self, settings: Settings) -> None:
        from k2_cli import services
        from k2_resources.supervisor import Supervisor

        self.settings = settings
        self.supervisor = Supervisor(settings.logs, _environment(settings), self._write_endpoints)
        ports = services.Ports(services.preferred_ports(settings), _say)
        # an address in the settings is a server of somebody else: it is used, not started
        registry = () if settings.registry_url else (services.registry(ports),)
        broker = (services.broker(settings, self._adopt),) if settings.is_embedded else ()
        self._first = (*registry, *broker)
        self._adopted = False
        self._code = services.code_server(settings, ports)
        self._rest = (
            services.webserver(settings, ports),
            services.daemon(settings, lambda: self._address("webserver"), RUNS_SECONDS_MAX),
            services.api(settings, ports),
        )

    def run(self) -> bool:
        """Start, watch, and stop in order. Returns whether everything acknowledged was ingested."""
        from k2_resources.supervisor import Stopping

        _on_signals(self.supervisor)
        try:
            self._start()
            self.supervisor.watch()
        except Stopping:
            pass
        except BaseException:
            self.supervisor.hurry.set()
            self.supervisor.close()
            self.settings.endpoints_file.unlink(missing_ok=True)
            raise
        return self._stop()

    def _start(self) -> None:
        from k2_core.errors import K2Error
        from k2_resources.supervisor import tail

        _say(f"starting K2 on {self.settings.home}")
        self.supervisor.begin(self._code)  # it imports for seconds, as adoption does; neither waits for the other
        self.supervisor.start(*self._first)
        if not self._adopt():
            self.supervisor.wait(0)
            log = self.supervisor.log_file("adopt")
            raise K2Error(f"the topics of the new broker could not be adopted; see {log}, which ends: {tail(log)}")
        self.supervisor.start(self._code)
        self.supervisor.start(*self._rest)
        _show(self.settings)
        _say("K2 is up")

    def _adopt(self) -> bool:
        """Tell the lake about the new broker, and Dagster which of its runs died with the old one."""
        from k2_cli import services

        code = self.supervisor.run("adopt", services.k2("_adopt"), ADOPT_SECONDS_MAX, unless=self.supervisor.stopping)
        self._adopted = code == 0
        return self._adopted

    def _stop(self) -> bool:
        """Stop in order: no new runs, runs end, what the broker still holds is ingested, then the servers."""
        _say("stopping; Ctrl-C again stops at once")
        self.supervisor.stop("daemon", "webserver")
        self._let_runs_end()
        self.supervisor.stop("code")
        drained = self._drain()
        self.supervisor.close()
        self.settings.endpoints_file.unlink(missing_ok=True)
        _say("K2 is down" if drained else "K2 is down; records the broker held in memory were not all ingested")
        return drained

    def _let_runs_end(self) -> None:
        """Wait for the runs of Dagster's own launcher; the daemon has waited for its forks."""
        deadline = time.monotonic() + RUNS_SECONDS_MAX
        while self._runs() and time.monotonic() < deadline and not self.supervisor.hurry.is_set():
            time.sleep(0.2)

    def _runs(self) -> int:
        """Processes of running runs: what the code server started, but for Python's own bookkeeper."""
        import psutil

        code = self.supervisor.children.get("code")
        try:
            started = psutil.Process(code.process.pid).children(recursive=True) if code else []
            return sum("resource_tracker" not in " ".join(process.cmdline()) for process in started)
        except psutil.Error:
            return 0

    def _drain(self) -> bool:
        """Ingest what was acknowledged: the broker forgets it when it ends."""
        from k2_cli import services

        if not self._adopted or not self.settings.is_embedded:
            return True
        if self._address("broker") is None or self.supervisor.hurry.is_set():
            return False
        _say("ingesting what the broker still holds")
        command = services.k2("ingest", "--until-caught-up")
        return self.supervisor.run("ingest", command, DRAIN_SECONDS_MAX, unless=self.supervisor.hurry) == 0

    def _address(self, name: str) -> str | None:
        child = self.supervisor.children.get(name)
        return child.address if child else None

    def _write_endpoints(self, children: Mapping[str, Child]) -> None:
        from k2_resources.supervisor import born

        found: dict[str, Any] = {
            key: children[name].address for name, key in SERVICES.items() if name in children and children[name].address
        }
        if "api" in found:
            found["metrics"] = f"{found['api']}/metrics"
        found["supervisor"] = os.getpid()
        found["pids"] = {name: child.process.pid for name, child in children.items()}
        found["started"] = {name: born(child.process.pid) for name, child in children.items()}
        _write(self.settings.endpoints_file, json.dumps(found, indent=2))


def _on_signals(supervisor: Supervisor) -> None:
    """First signal: stop in order. Second: stop at once."""

    def asked(*_: Any) -> None:
        (supervisor.hurry if supervisor.stopping.is_set() else supervisor.stopping).set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, asked)


def _end_last_stack(settings: Settings) -> None:
    """End what a killed supervisor has left, so that two stacks never share a home."""
    from k2_resources.supervisor import end_leftovers

    last = settings.endpoints()
    started = last.get("started", {})
    end_leftovers({pid: started[name] for name, pid in last.get("pids", {}).items() if started.get(name)})
    settings.endpoints_file.unlink(missing_ok=True)


def _prepare(settings: Settings) -> None:
    """Make the folders, Dagster's instance file and, once, the API key."""
    from k2_cli.services import REPOSITORY

    settings.dagster_home.mkdir(parents=True, exist_ok=True)
    instance = (REPOSITORY / "dagster.yaml").read_text()
    launcher = FAST_LAUNCHER if settings.launcher == "fast" else ""
    (settings.dagster_home / "dagster.yaml").write_text(instance + launcher)
    if not settings.api_key_file.exists():
        _write(settings.api_key_file, secrets.token_urlsafe(32) + "\n")


def _environment(settings: Settings) -> dict[str, str]:
    return {**os.environ, "K2_HOME": str(settings.home), "DAGSTER_HOME": str(settings.dagster_home)}


def _write(file: Path, text: str) -> None:
    """Replace a file at once; only its owner may read it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as target:
        target.write(text)
    unfinished.replace(file)


def _show(settings: Settings) -> None:
    from k2_cli.tables import show_table

    endpoints = settings.endpoints()
    api = endpoints["api"]
    show_table(
        ("what", "where"),
        [
            ("Dagster", endpoints["dagster"]),
            ("API", api),
            ("API docs", f"{api}/docs"),
            ("metrics", endpoints["metrics"]),
            ("registry", settings.registry()),
            ("Kafka", settings.bootstrap()),
            ("API key", str(settings.api_key_file)),
            ("logs", str(settings.logs)),
        ],
    )


def _say(sentence: str) -> None:
    click.echo(sentence)
    sys.stdout.flush()

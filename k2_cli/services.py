"""The services of the embedded stack: their command lines, ports, and how each shows that it answers."""

from __future__ import annotations

import json
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from k2_resources import embedded_broker
from k2_resources.settings import Settings
from k2_resources.supervisor import Launch, Service

HOST = "127.0.0.1"
REPOSITORY = Path(__file__).resolve().parents[1]
DEFINITIONS = "k2_assets.definitions"
_PROBE_SECONDS = 2.0
_DAEMON_SECONDS = 20.0
"""How long Dagster's daemon may take to end its loops."""
_LOGS = ("--log-format", "json")
"""Dagster's processes colour their logs otherwise, into files too."""
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks without a proxy: all our listeners are on loopback."""
_DAEMON_HEALTH = "{instance{daemonHealth{allDaemonStatuses{required healthy}}}}"


class Ports:
    """The ports services prefer and have: a restarted service gets its own again while it is free."""

    def __init__(self, preferred: dict[str, int], told: Callable[[str], None]) -> None:
        """told: hears a sentence about each preferred port that was taken."""
        self._ports, self._told = dict(preferred), told

    def pick(self, name: str) -> int:
        wanted = self._ports[name]
        if not is_free(wanted):
            self._ports[name] = any_free()
            self._told(f"port {wanted} is in use: {name} takes {self._ports[name]}")
        return self._ports[name]


def is_free(port: int) -> bool:
    """Tell whether a server could listen on a loopback port now."""
    with socket.socket() as probe:
        # as servers do, so that connections of a server that just ended do not count
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def any_free() -> int:
    """A loopback port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def k2(*arguments: str) -> tuple[str, ...]:
    """The command line of a `k2` command in a process of its own."""
    return (sys.executable, "-m", "k2_cli.main", *arguments)


def preferred_ports(settings: Settings) -> dict[str, int]:
    """Service name -> the port it prefers."""
    return {
        "registry": settings.registry_port,
        "code": any_free(),  # gRPC shares a port with whoever else listens there: none that another stack prefers
        "webserver": settings.dagster_port,
        "api": settings.api_port,
    }


def registry(ports: Ports) -> Service:
    """The schema registry."""

    def launch() -> Launch:
        return Launch(k2("_registry", str(ports.pick("registry"))), _address("/subjects"))

    return Service("registry", launch)


def broker(settings: Settings, recovered: Callable[[], bool]) -> Service:
    """The broker; each start is another incarnation on another port."""

    def address(process_id: int) -> str | None:
        try:
            ready = json.loads(embedded_broker.broker_file(settings.home).read_text())
        except FileNotFoundError:
            return None
        return str(ready["bootstrap"]) if ready["pid"] == process_id else None

    return Service("broker", lambda: Launch(k2("_broker"), address), recovered)


def code_server(settings: Settings, ports: Ports) -> Service:
    """One process that imports the definitions, for webserver and daemon together."""

    def launch() -> Launch:
        port = ports.pick("code")
        _write_workspace(workspace_file(settings), port)
        where = ("--host", HOST, "--port", str(port))
        what = ("--module-name", DEFINITIONS, "--location-name", "k2", "--log-level", "warning", *_LOGS)
        command = (sys.executable, "-m", "dagster", "api", "grpc", *where, *what)
        return Launch(command, lambda pid: f"{HOST}:{port}" if port in listening(pid) else None)

    return Service("code", launch)


def webserver(settings: Settings, ports: Ports) -> Service:
    """Dagster's UI and GraphQL."""

    def launch() -> Launch:
        where = ("--host", HOST, "--port", str(ports.pick("webserver")))
        command = (
            sys.executable,
            "-m",
            "dagster_webserver",
            *where,
            "--workspace",
            str(workspace_file(settings)),
            *_LOGS,
        )
        return Launch(command, _address("/server_info"))

    return Service("webserver", launch)


def daemon(settings: Settings, webserver_url: Callable[[], str | None], runs_seconds_max: float) -> Service:
    """Dagster's sensors and run queue; its heartbeats are read through the webserver.

    runs_seconds_max: how long it may wait, when it ends, for runs it has forked itself.
    """
    command = (sys.executable, "-m", "dagster._daemon", "run", "--workspace", str(workspace_file(settings)), *_LOGS)

    def healthy(_process_id: int) -> str | None:
        url = webserver_url()
        return url if url and daemon_is_healthy(url) else None

    stop_seconds = _DAEMON_SECONDS + (runs_seconds_max if settings.launcher == "fast" else 0.0)
    return Service("daemon", lambda: Launch(command, healthy), stop_seconds=stop_seconds)


def api(settings: Settings, ports: Ports) -> Service:
    """The read API."""

    def launch() -> Launch:
        command = k2("serve", "--host", HOST, "--port", str(ports.pick("api")), "--home", str(settings.home))
        return Launch(command, _address("/health"))

    return Service("api", launch)


def workspace_file(settings: Settings) -> Path:
    """Where the generated workspace lies."""
    return settings.home / "run" / "workspace.yaml"


def _write_workspace(file: Path, port: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    server = {"host": HOST, "port": port, "location_name": "k2"}
    file.write_text(json.dumps({"load_from": [{"grpc_server": server}]}, indent=2))


def _address(path: str) -> Callable[[int], str | None]:
    """Where a process itself answers a path over HTTP, once it does.

    Another stack may have taken the port since it was picked, and a service another port by itself.
    """

    def found(process_id: int) -> str | None:
        urls = (f"http://{HOST}:{port}" for port in listening(process_id))
        return next((url for url in urls if answers(url + path)), None)

    return found


def listening(process_id: int) -> list[int]:
    """The ports a process listens on."""
    try:
        found = psutil.Process(process_id).net_connections(kind="tcp")
    except psutil.Error:
        return []
    return [c.laddr.port for c in found if c.status == psutil.CONN_LISTEN]


def answers(url: str) -> bool:
    """Tell whether an HTTP server answers, whatever it says."""
    try:
        _DIRECT.open(url, timeout=_PROBE_SECONDS).close()
    except urllib.error.HTTPError as error:
        error.close()
    except (OSError, ValueError):
        return False
    return True


def connects(port: int, host: str = HOST) -> bool:
    """Tell whether somebody listens."""
    try:
        socket.create_connection((host, port), timeout=_PROBE_SECONDS).close()
    except OSError:
        return False
    return True


def daemon_is_healthy(webserver_url: str) -> bool:
    """Tell whether every daemon the instance needs has a recent heartbeat."""
    body = json.dumps({"query": _DAEMON_HEALTH}).encode()
    request = urllib.request.Request(  # noqa: S310 - our own URL
        f"{webserver_url}/graphql", body, {"Content-Type": "application/json"}
    )
    try:
        with _DIRECT.open(request, timeout=_PROBE_SECONDS) as answer:
            said: Any = json.load(answer)
        statuses = said["data"]["instance"]["daemonHealth"]["allDaemonStatuses"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return all(status["healthy"] for status in statuses if status["required"])

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Event, Thread

import dagster as dg
import psutil
import pytest
import yaml

from k2_assets.launcher import WarmRunLauncher
from k2_cli import services
from k2_cli.stack import _end_last_stack, _prepare
from k2_core.errors import AlreadyRunning, Unreachable
from k2_resources.settings import Settings
from k2_resources.supervisor import Launch, Service, Supervisor, born, sole_owner
from k2_tests.e2e.stack import wait_for

EVENTUALLY_SECONDS_MAX = 30.0


def eventually(condition):
    deadline = time.monotonic() + EVENTUALLY_SECONDS_MAX
    while not (found := condition()):
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.05)
    return found


def is_gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def k2(*arguments, **environment):
    command = [sys.executable, "-m", "k2_cli.main", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=60, check=False
    )


class SmallStack:
    """A running small_stack and what it reports."""

    def __init__(self, home):
        self.home = home
        self.process = subprocess.Popen([sys.executable, "-m", "k2_tests.cli.small_stack", str(home)])
        eventually(lambda: len(self.services()) == 2 and len(self.grandchildren()) == 2)

    def services(self):
        file = self.home / "services"
        return json.loads(file.read_text()) if file.exists() else {}

    def grandchildren(self):
        file = self.home / "grandchildren"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def everything(self):
        return [
            *self.services().values(),
            *self.grandchildren(),
            *(c.pid for c in psutil.Process(self.process.pid).children()),
        ]


@pytest.fixture
def small_stack(tmp_path):
    home = tmp_path / "a home with spaces"
    home.mkdir()
    stack = SmallStack(home)
    yield stack
    stack.process.kill()
    stack.process.wait()
    eventually(lambda: all(is_gone(pid) for pid in [*stack.services().values(), *stack.grandchildren()]))


@pytest.fixture
def supervisor(tmp_path):
    supervisor = Supervisor(tmp_path / "logs", os.environ, lambda _children: None)
    yield supervisor
    supervisor.close()


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path / "home")


def test_a_crashed_service_comes_back_and_is_told_to_recover(small_stack):
    before = small_stack.services()
    os.kill(before["one"], signal.SIGKILL)
    after = eventually(lambda: (now := small_stack.services()).get("one") not in (None, before["one"]) and now)
    assert after["two"] == before["two"]
    eventually((small_stack.home / "recovered").exists)


def test_what_a_crashed_service_had_started_ends_with_it(small_stack):
    children = {pid: psutil.Process(pid).children()[0].pid for pid in small_stack.services().values()}
    crashed = small_stack.services()["one"]
    os.kill(crashed, signal.SIGKILL)
    eventually(lambda: is_gone(children[crashed]))


def test_a_stop_leaves_no_process_and_no_lock(small_stack):
    everything = small_stack.everything()
    small_stack.process.terminate()
    assert small_stack.process.wait(EVENTUALLY_SECONDS_MAX) == 0
    assert [pid for pid in everything if not is_gone(pid)] == []
    assert not (small_stack.home / "lock").exists()


def test_a_kill_of_the_supervisor_ends_everything_and_frees_the_lock(small_stack):
    everything = small_stack.everything()
    small_stack.process.kill()
    small_stack.process.wait()
    eventually(lambda: all(is_gone(pid) for pid in everything))
    assert (small_stack.home / "lock").exists()
    with sole_owner(small_stack.home / "lock"):
        assert (small_stack.home / "lock").read_text() == str(os.getpid())


def test_a_second_owner_is_refused_with_the_first_ones_process_id(small_stack):
    with (
        pytest.raises(AlreadyRunning, match=f"process {small_stack.process.pid} already runs"),
        sole_owner(small_stack.home / "lock"),
    ):
        pass


def test_k2_up_on_a_home_in_use_says_who_uses_it(settings):
    with sole_owner(settings.home / "run" / "lock"):
        second = k2("up", "--home", settings.home)
    assert second.returncode == 2
    assert second.stderr.startswith(f"ALREADY_RUNNING: process {os.getpid()} already runs")
    assert second.stderr.count("\n") == 1


def test_a_service_that_ends_before_it_answers_is_told_with_the_end_of_its_log(supervisor):
    launches = []

    def launch():
        launches.append(1)
        return Launch(("sh", "-c", "echo no such luck; exit 3"), lambda _pid: None)

    with pytest.raises(Unreachable, match=r"(?s)unlucky: ended with exit code 3 .*no such luck"):
        supervisor.start(Service("unlucky", launch))
    assert len(launches) == 3


def test_a_service_is_up_only_when_it_answers(supervisor, tmp_path):
    ready = tmp_path / "ready"
    script = f"sleep 0.3; echo here > '{ready}'; sleep 1000"
    launch = Launch(("sh", "-c", script), lambda _pid: ready.read_text() if ready.exists() else None)
    supervisor.start(Service("slow", lambda: launch))
    assert supervisor.children["slow"].address == "here\n"


def test_a_bounded_command_is_cut_short_with_all_it_started(supervisor, tmp_path):
    child = tmp_path / "child"
    script = f"trap '' TERM; sleep 1000 & echo $! > '{child}'; wait"
    assert supervisor.run("stuck", ("sh", "-c", script), 0.5, unless=Event()) is None
    assert eventually(lambda: is_gone(int(child.read_text())))


def test_a_bounded_command_gives_its_exit_code_and_a_log(supervisor):
    assert supervisor.run("done", ("sh", "-c", "echo said; exit 7"), 30, unless=Event()) == 7
    assert supervisor.log_file("done").read_text() == "said\n"


def test_a_taken_port_is_replaced_and_said():
    with socket.socket() as taken:
        taken.bind((services.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = []
        ports = services.Ports({"api": port}, said.append)
        other = ports.pick("api")
    assert other != port
    assert said == [f"port {port} is in use: api takes {other}"]
    assert ports.pick("api") == other


def test_a_free_port_is_kept_and_nothing_said():
    said = []
    port = services.any_free()
    assert services.Ports({"api": port}, said.append).pick("api") == port
    assert said == []


def test_the_server_of_another_stack_is_not_taken_for_our_own_service(settings, tmp_path):
    """Two stacks that start at once may both have seen a port free; one of them did not get it."""
    port = services.any_free()
    answers = services.api(settings, services.Ports({"api": port}, print)).launch().answers
    serve = (sys.executable, "-m", "http.server", str(port), "--bind", services.HOST, "--directory", str(tmp_path))
    with subprocess.Popen(("sleep", "1000")) as ours, subprocess.Popen(serve, stderr=subprocess.DEVNULL) as theirs:
        try:
            wait_for(lambda: services.answers(f"http://{services.HOST}:{port}/health"), 30, "their server")
            assert answers(ours.pid) is None
            assert answers(theirs.pid) == f"http://{services.HOST}:{port}"
        finally:
            ours.kill()
            theirs.kill()


def test_an_http_proxy_in_the_environment_does_not_hide_our_own_servers(monkeypatch):
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(503)

        def log_message(self, *_):
            pass

    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{services.any_free()}")
    with HTTPServer((services.HOST, 0), Answer) as server:
        Thread(target=server.handle_request, daemon=True).start()
        assert services.answers(f"http://{services.HOST}:{server.server_address[1]}/health")


def test_the_api_key_is_made_once_and_is_its_owners_alone(settings):
    _prepare(settings)
    key = settings.api_key_file.read_text()
    _prepare(settings)
    assert settings.api_key_file.read_text() == key
    assert len(key.strip()) >= 32
    assert stat.S_IMODE(settings.api_key_file.stat().st_mode) == 0o600


def test_dagster_finds_its_instance_file_in_its_home_with_the_launcher_asked_for(settings):
    found = {}
    for launcher in ("standard", "fast"):
        _prepare(settings.model_copy(update={"launcher": launcher}))
        found[launcher] = (settings.dagster_home / "dagster.yaml").read_text()
    assert found["standard"] == (services.REPOSITORY / "dagster.yaml").read_text()
    added = yaml.safe_load(found["fast"].removeprefix(found["standard"]))
    assert added == {"run_launcher": {"module": "k2_assets.launcher", "class": "WarmRunLauncher"}}
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        assert isinstance(instance.run_launcher, WarmRunLauncher)


def test_what_a_killed_stack_left_is_ended_by_the_next(settings):
    left = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    innocent = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    settings.endpoints_file.parent.mkdir(parents=True)
    started = {"left": born(left.pid), "reused": born(innocent.pid) - 5.0}
    endpoints = {"pids": {"left": left.pid, "reused": innocent.pid}, "started": started}
    settings.endpoints_file.write_text(json.dumps(endpoints))
    try:
        _end_last_stack(settings)
        assert left.wait(EVENTUALLY_SECONDS_MAX) == -signal.SIGKILL
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_status_of_a_home_without_a_stack_is_down(settings):
    said = k2("status", "--json", "--home", settings.home)
    report = json.loads(said.stdout)
    assert said.returncode == 2
    assert report["state"] == "down"
    assert report["services"]["api"] == {"url": None, "answers": False}


def test_status_names_what_does_not_answer(settings, registry_url):
    settings.endpoints_file.parent.mkdir(parents=True)
    dead = f"http://127.0.0.1:{services.any_free()}"
    settings.endpoints_file.write_text(json.dumps({"registry": registry_url, "api": dead}))
    said = k2("status", "--home", settings.home)
    assert said.returncode == 1
    lines = {line.split()[0]: line.split() for line in said.stdout.splitlines() if line}
    assert lines["registry"][1:] == [registry_url, "yes"]
    assert lines["api"][1:] == [dead, "no"]


def test_help_loads_neither_dagster_nor_arrow():
    script = (
        "import sys\nfrom click.testing import CliRunner\nfrom k2_cli.main import main\n"
        "said = CliRunner().invoke(main, ['--help'])\nassert said.exit_code == 0, said.output\nassert ' up ' in said.output\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"dagster", "pyarrow", "duckdb", "confluent_kafka", "fastapi"} & set(loaded)


def test_help_lists_people_commands_that_exist_and_no_children():
    said = k2("--help").stdout
    listed = [line.split()[0] for line in said.partition("Commands:")[2].splitlines() if line.startswith("  ")]
    assert {"up", "status"} <= set(listed)
    assert not any(name.startswith("_") for name in listed)


def test_an_unknown_command_is_a_usage_error():
    said = k2("no-such-command")
    assert said.returncode == 2
    assert "No such command" in said.stderr

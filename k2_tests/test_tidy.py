"""The shape of the house: sizes, words that do not belong, and what a fresh machine relies on."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("k2_core", "k2_resources", "k2_feeds", "k2_assets", "k2_api", "k2_cli", "k2_client")
FILES = sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))
FILE_LINES_MAX, FUNCTION_LINES_MAX, README_LINES_MAX = 335, 50, 150
BANNED_NAMES = re.compile(r"(^|_)(utils?|helpers?|common|managers?|handlers?)(_|$)")
DAGSTER_READS_ANNOTATIONS = ("k2_assets", "k2_resources/bindings.py")


def relative(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_a_file_is_one_noun_of_readable_size(path):
    assert len(path.read_text().splitlines()) <= FILE_LINES_MAX
    long = [f.name for f in functions(path) if f.end_lineno - f.lineno >= FUNCTION_LINES_MAX]
    assert long == []
    assert not BANNED_NAMES.search(path.stem)
    assert not re.search(r"\b(TODO|FIXME|XXX|NotImplementedError)\b", path.read_text())


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_dagster_can_read_the_annotations_and_everything_else_is_lazy(path):
    lazy = "from __future__ import annotations" in path.read_text()
    eager = relative(path).startswith(DAGSTER_READS_ANNOTATIONS)
    has_code = len(ast.parse(path.read_text()).body) > 1
    assert lazy != eager or not has_code


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_nothing_is_read_from_the_environment_at_import(path):
    tree = ast.parse(path.read_text())
    top = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)]
    read = [ast.unparse(node) for node in top if "os.environ" in ast.unparse(node) or "getenv" in ast.unparse(node)]
    assert read == []


def test_only_the_clock_reads_the_wall_time():
    readers = [
        relative(path)
        for path in FILES
        if re.search(r"datetime\.now\(|datetime\.utcnow\(|time\.time\(", path.read_text())
    ]
    assert readers == ["k2_resources/clock.py"]


def test_the_lock_names_no_host_and_every_version_has_its_hashes():
    lock = (REPOSITORY / "requirements.lock").read_text()
    assert "://" not in lock
    pins = re.findall(r"^([a-z0-9][^\s=]*)==", lock, re.MULTILINE)
    assert len(pins) > 50
    assert lock.count("--hash=sha256:") >= len(pins)


def test_the_readme_is_short_and_names_the_two_commands():
    readme = (REPOSITORY / "README.md").read_text()
    assert len(readme.splitlines()) <= README_LINES_MAX
    assert "make demo" in readme
    assert "make test" in readme
    assert "make test" in (REPOSITORY / ".ci" / "run").read_text().splitlines()


def test_the_python_bounds_let_every_supported_version_resolve():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11,<3.14"
    assert all(re.search(r"[<=]", dependency) for dependency in project["dependencies"] if "tzdata" not in dependency)


def test_every_setting_says_what_it_is():
    from k2_resources.settings import Settings

    assert [name for name, field in Settings.model_fields.items() if not field.description] == []

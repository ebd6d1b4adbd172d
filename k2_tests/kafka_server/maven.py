"""Java programs for tests: jars resolved by Maven, once, into a cache folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

RESOLVE_SECONDS_MAX = 420.0
"""46 jars take seven seconds on a good line; this is for a bad one."""
JAVA_MIN = 17
"""What Apache Kafka's broker and Spark 4 are compiled for."""
_SAID_CHARACTERS = 300


class Unavailable(Exception):
    """Raised when a Java program cannot be had on this machine; says what is missing. Tests skip with it."""


@dataclass(frozen=True)
class Artifact:
    """One artifact with all it needs at run time. without: `group:artifact` patterns left out."""

    group: str
    name: str
    version: str
    without: tuple[str, ...] = ()


def cache() -> Path:
    """Where jars and environments are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "k2"


def java() -> str:
    """The Java to run. Raises Unavailable when there is none, or one too old."""
    found = shutil.which("java")
    if found is None:
        raise Unavailable("java is not installed")
    told = subprocess.run([found, "-version"], check=False, capture_output=True, text=True, timeout=60).stderr
    version = re.search(r'version "(\d+)', told)
    if version is None or int(version[1]) < JAVA_MIN:
        raise Unavailable(f"java {JAVA_MIN} or newer is needed, found {told.splitlines()[:1]}")
    return found


def resolve(folder: Path, artifacts: Sequence[Artifact]) -> Path:
    """Fill a folder with the jars of some artifacts unless it is there already. Raises Unavailable.

    Processes that do so at the same time do not meet: each fills a folder of its own, and the first is kept.
    """
    if folder.is_dir():
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise Unavailable("mvn is not installed")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="resolving-") as scratch:
        _copy_dependencies(maven, Path(scratch), artifacts)
        try:
            (Path(scratch) / "jars").rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    return folder


def _copy_dependencies(maven: str, scratch: Path, artifacts: Sequence[Artifact]) -> None:
    (scratch / "pom.xml").write_text(_pom(artifacts))
    goal = ("dependency:copy-dependencies", f"-DoutputDirectory={scratch / 'jars'}", "-DincludeScope=runtime")
    command = [maven, "-q", "-B", "-f", str(scratch / "pom.xml"), *goal]
    wanted = ", ".join(f"{a.group}:{a.name}:{a.version}" for a in artifacts)
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=RESOLVE_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"maven did not resolve {wanted} within {RESOLVE_SECONDS_MAX:.0f} s") from None
    if done.returncode != 0 or not any((scratch / "jars").glob("*.jar")):
        said = (done.stdout + done.stderr).strip()[:_SAID_CHARACTERS]
        raise Unavailable(f"maven cannot resolve {wanted}: {said}")


def _pom(artifacts: Sequence[Artifact]) -> str:
    head = "<modelVersion>4.0.0</modelVersion><groupId>k2.tests</groupId><artifactId>jars</artifactId>"
    body = "".join(map(_dependency, artifacts))
    return (
        f"<project>{head}<version>1</version><packaging>pom</packaging><dependencies>{body}</dependencies></project>\n"
    )


def _dependency(artifact: Artifact) -> str:
    named = _element("groupId", artifact.group) + _element("artifactId", artifact.name)
    parts = [pattern.split(":") for pattern in artifact.without]
    left_out = "".join(
        f"<exclusion>{_element('groupId', group)}{_element('artifactId', name)}</exclusion>" for group, name in parts
    )
    version = _element("version", artifact.version)
    return f"<dependency>{named}{version}<exclusions>{left_out}</exclusions></dependency>"


def _element(name: str, text: str) -> str:
    return f"<{name}>{escape(text)}</{name}>"

"""Named places where a test may stop the commit protocol; without one armed they cost a look at an empty dict."""

from __future__ import annotations

import os
import signal

from k2_core.errors import K2Error, Misconfigured

NAMES = (
    "planned",
    "read",
    "decoded",
    "judged",
    "data_written",
    "sidecars_written",
    "state_written",
    "receipt_written",
    "committing",
    "manifest_written",
    "manifest_list_written",
    "metadata_written",
    "committed",
    "collecting_receipts",
    "collected_receipts",
    "collecting_dead_letters",
    "collected_dead_letters",
    "collecting_gaps",
    "collected_gaps",
    "hinted",
    "reported",
)
"""The steps of the commit protocol, in order. Each name says what has just happened, or is about to (-ing).

manifest_written, manifest_list_written and metadata_written are inside the catalog's commit, the last of them just
before its compare-and-swap; tables that are made and audit tables that are appended to pass them, too.
"""

UPKEEP = ("expiring", "expired", "forgotten", "sweeping", "deleting", "swept", "file_deleted")
"""Steps that not every run takes: snapshots expire and their files go; a sweep has listed, will delete, has deleted.

file_deleted is inside both, after each file.
"""

ALL = (*NAMES, *UPKEEP)

ACTIONS = ("kill", "raise", "pause")
"""kill: as if the power went. raise: as if a call failed. pause: until somebody continues the process."""


class Tripped(K2Error):
    """Raised when an armed failpoint of kind `raise` is reached."""

    code = "FAILPOINT"


_armed: dict[str, tuple[int, str]] = {}
_reached: dict[str, int] = {}


def arm(text: str) -> None:
    """Arm `name[:nth][:kill|raise|pause]`, or disarm all with an empty text. Raises Misconfigured."""
    _armed.clear()
    _reached.clear()
    if not text:
        return
    name, *rest = text.split(":")
    nth = int(rest.pop(0)) if rest and rest[0].isdigit() else 1
    action = rest.pop(0) if rest else "kill"
    if name not in ALL or action not in ACTIONS or rest:
        expected = f"name[:nth][:{'|'.join(ACTIONS)}] with a name of {', '.join(ALL)}"
        raise Misconfigured(f"K2_FAILPOINT={text}: expected {expected}")
    _armed[name] = (nth, action)


def reach(name: str) -> None:
    """Pass a named place; stop there when it is armed and this is the nth time."""
    if not _armed or name not in _armed:
        return
    nth, action = _armed[name]
    _reached[name] = _reached.get(name, 0) + 1
    if _reached[name] != nth:
        return
    if action == "raise":
        raise Tripped(f"failpoint {name} reached for the {nth}. time")
    os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)


def reach_file(path: str) -> None:
    """Pass the place that comes after a metadata file of a commit is durable; data and sidecars have their own."""
    if not _armed:
        return
    name = path.rpartition("/")[2]
    if name.endswith(".metadata.json"):
        reach("metadata_written")
    elif name.startswith("snap-"):
        reach("manifest_list_written")
    elif name.endswith(".avro"):
        reach("manifest_written")

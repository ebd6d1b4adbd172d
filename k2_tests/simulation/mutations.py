"""Deliberate bugs: each is one sentence of the protocol left out, and the truth must find every one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from k2_core.keys import PREFIX, SWEPT_KEY, topic_key
from k2_core.protocol import commit as committing
from k2_core.protocol import ingestion, planning, retain
from k2_core.protocol.ingestion import Ingestion
from k2_tests.simulation import bugs
from k2_tests.simulation.scenario import Parts


@dataclass(frozen=True)
class Mutation:
    """One bug. parts replace ports, patches names of the protocol.

    seeds_max: how many seeds surely meet it, from first on. A first other than 0 saves time where a bug needs a rare
    schedule; wherever it is looked for, fewer than 10,000 seeds find it.
    """

    says: str
    seeds_max: int = 2_000
    parts: Parts = field(default_factory=Parts)
    patches: Mapping[tuple[Any, str], Any] = field(default_factory=dict)
    first: int = 0

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Have the bug, for a while."""
        before = {(where, name): getattr(where, name) for where, name in self.patches}
        for (where, name), value in self.patches.items():
            setattr(where, name, value)
        try:
            yield
        finally:
            for (where, name), value in before.items():
                setattr(where, name, value)


MUTATIONS: dict[str, Mutation] = {
    "no_fence": Mutation("a commit compares nothing", parts=Parts(ledger=bugs.NoFence)),
    "fence_at_plan_time": Mutation("a retry re-applies unchecked", parts=Parts(ledger=bugs.FenceAtPlanTime)),
    "fence_without_absent": Mutation("absent keys are not compared", parts=Parts(ledger=bugs.FenceWithoutAbsent)),
    "fence_on_offsets_only": Mutation(
        "the fence compares offsets only", patches={(committing, "expectations"): bugs.only(f"{PREFIX}{bugs.OFFSETS}.")}
    ),
    "fence_without_state": Mutation(
        "the state is not in the fence", patches={(committing, "expectations"): bugs.without(f"{PREFIX}state.")}
    ),
    "fence_without_swept": Mutation(
        "the sweep number is not in the fence", patches={(committing, "expectations"): bugs.without(SWEPT_KEY)}
    ),
    "fence_without_topic": Mutation(
        "the incarnation is not in the fence",
        seeds_max=9_000,
        patches={(committing, "expectations"): bugs.without(topic_key(""))},
        first=2_600,
    ),
    "offsets_before_rows": Mutation("offsets, then rows: two commits", parts=Parts(ledger=bugs.OffsetsBeforeRows)),
    "rows_before_offsets": Mutation("rows, then offsets: two commits", parts=Parts(ledger=bugs.RowsBeforeOffsets)),
    "offsets_in_summary": Mutation("offsets in snapshot summaries only", parts=Parts(ledger=bugs.OffsetsInSummary)),
    "state_apart": Mutation("the state is not in the commit", parts=Parts(ledger=bugs.StateApart)),
    "collect_without_fence": Mutation("audit tables are appended unfenced", parts=Parts(ledger=bugs.UnfencedCollector)),
    "copies_before_key": Mutation("copies and their key in two commits", parts=Parts(ledger=bugs.CopiesBeforeKey)),
    "failure_means_again": Mutation("no answer: commit again unseen", parts=Parts(ledger=bugs.FailureMeansAgain)),
    "failure_means_done": Mutation("no answer: believe it landed", parts=Parts(ledger=bugs.FailureMeansDone)),
    "cleans_up_unknown": Mutation("no answer: delete the files", parts=Parts(ledger=bugs.CleansUpUnknown)),
    "letters_lost_on_retry": Mutation("a retry loses the sidecars", parts=Parts(ledger=bugs.LettersLostOnRetry)),
    "expiry_deletes_shared": Mutation("expiry deletes files others need", parts=Parts(ledger=bugs.DeletesShared)),
    "state_unreferenced": Mutation(
        "a file named by a property is nobody's", parts=Parts(ledger=bugs.StateUnreferenced)
    ),
    "receipt_unsynced": Mutation("a receipt is not synced before the swap", parts=Parts(disk=bugs.ReceiptUnsynced)),
    "manifest_unsynced": Mutation("a manifest is not synced before the swap", parts=Parts(disk=bugs.ManifestUnsynced)),
    "expiry_before_collect": Mutation(
        "snapshots expire uncollected", patches={(retain, "collected_until"): lambda audit, at: 1 << 60}
    ),
    "sweep_without_number": Mutation(
        "a sweep fences nobody out", patches={(retain, "sweep"): bugs.sweep_without_number}
    ),
    "sweep_lists_late": Mutation("a sweep lists after the number", patches={(retain, "sweep"): bugs.sweep_lists_late}),
    "jumps_to_earliest": Mutation("the client resets to the earliest offset", parts=Parts(log=bugs.JumpsToEarliest)),
    "error_means_end": Mutation("an error message is an end of partition", parts=Parts(log=bugs.ErrorMeansEnd)),
    "skips_ahead": Mutation(
        "the planner skips what is gone",
        patches={
            (planning, "start_of"): bugs.skip_ahead,
            (ingestion, "remaining"): bugs.remaining_as_planned,
            (ingestion, "_expect_starts"): bugs.nothing,
        },
    ),
    "registers_at_end": Mutation("a new topic is read from its end", parts=Parts(ingestion=bugs.RegistersAtEnd)),
    "adopts_in_epoch": Mutation(
        "an adopted topic keeps its epoch", patches={(ingestion, "Registered"): bugs.same_epoch}
    ),
    "no_second_look": Mutation("the incarnation is not read again", parts=Parts(ingestion=bugs.NoSecondLook)),
    "no_look": Mutation("the incarnation is not read when reading", parts=Parts(ingestion=bugs.NoLook)),
    "starts_unchecked": Mutation(
        "a batch is not compared with the stored offsets", patches={(ingestion, "_expect_starts"): bugs.nothing}
    ),
    "topics_unchecked": Mutation(
        "an adoption while reading goes unseen",
        seeds_max=9_000,
        patches={(ingestion, "_expect_same_topics"): bugs.nothing},
        first=1_300,
    ),
    "reads_paused": Mutation(
        "a partition paused after it was planned is read",
        seeds_max=9_000,
        patches={(ingestion, "remaining"): bugs.remaining_though_paused},
        first=1_200,
    ),
    "state_gone_is_damage": Mutation(
        "a writer that was overtaken calls its state file damaged",
        patches={(Ingestion, "_judged"): bugs.judged_unasked},
    ),
    "runs_past_pause": Mutation(
        "what was read ahead follows a pause", patches={(ingestion, "_complain_of_pauses"): bugs.nothing}
    ),
}

"""Edges, groups and the outbox, against what a person would write down."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import given, settings

from k2_core.alerts import NOTICE_ALERTS_MAX, Condition, Watched, grouped, levels, turned
from k2_core.outbox import BACK_OFF_SECONDS_MAX, ENTRIES_MAX, Outbox, back_off_seconds
from k2_core.watch import Seen, Watch

SECOND = 1_000_000
SUBJECTS = ("a", "b", "c")


def wrong(subject: str = "a", **changes: object) -> Condition:
    return replace(Condition("check", subject, f"{subject} is wrong", "somewhere"), **changes)  # type: ignore[arg-type]


looks = st.lists(st.dictionaries(st.sampled_from(SUBJECTS), st.booleans()), max_size=30)
"""What successive looks say of each subject: wrong, right, or nothing."""


@settings(max_examples=40)
@given(looks)
def test_each_change_of_state_is_one_edge_and_nothing_else_is(seen: list[dict[str, bool]]) -> None:
    watched, told, state = Watched(), [], dict.fromkeys(SUBJECTS, False)
    expected = []
    for at, look in enumerate(seen):
        changes = {wrong(s).key: wrong(s) if is_wrong else None for s, is_wrong in look.items()}
        watched, alerts = turned(watched, changes, at)
        told += [(a.condition.subject, a.turn, a.at_us) for a in alerts]
        for subject, is_wrong in sorted(look.items()):
            if is_wrong != state[subject]:
                expected.append((subject, "firing" if is_wrong else "recovered", at))
            state[subject] = is_wrong
    assert told == expected
    assert {fire.condition.subject for fire in watched.firing.values()} == {s for s in SUBJECTS if state[s]}


@settings(max_examples=40)
@given(looks)
def test_no_two_edges_share_a_key_and_seeing_one_again_gives_the_same(seen: list[dict[str, bool]]) -> None:
    watched, keys = Watched(), []
    for at, look in enumerate(seen):
        changes = {wrong(s).key: wrong(s) if is_wrong else None for s, is_wrong in look.items()}
        again = [a.idempotency_key for a in turned(watched, changes, at)[1]]
        watched, alerts = turned(watched, changes, at)
        assert [a.idempotency_key for a in alerts] == again
        keys += again
    assert len(set(keys)) == len(keys)


def test_a_warning_that_becomes_an_error_is_told_again_and_recovers_once() -> None:
    warning, error = wrong(severity="warn"), wrong(severity="error")
    watched, first = turned(Watched(), {warning.key: warning}, 1)
    watched, second = turned(watched, {error.key: error}, 2)
    watched, third = turned(watched, {error.key: warning}, 3)
    watched, fourth = turned(watched, {error.key: None}, 4)
    assert [[a.turn for a in alerts] for alerts in (first, second, third, fourth)] == [
        ["firing"], ["firing"], [], ["recovered"],
    ]  # fmt: skip


def test_what_must_last_is_told_only_once_it_has() -> None:
    lag = wrong(hold_seconds=60, progress="17")
    watched, alerts = turned(Watched(), {lag.key: lag}, 0)
    assert alerts == ()
    moved = replace(lag, progress="18")
    watched, alerts = turned(watched, {lag.key: moved}, 50 * SECOND)
    watched, alerts = turned(watched, {lag.key: moved}, 109 * SECOND)
    assert alerts == (), "it moved on after 50 s: its time began anew"
    watched, alerts = turned(watched, {lag.key: moved}, 110 * SECOND)
    assert [(a.turn, a.since_us) for a in alerts] == [("firing", 50 * SECOND)]
    watched, alerts = turned(watched, {lag.key: replace(lag, progress="19")}, 120 * SECOND)
    assert [a.turn for a in alerts] == ["recovered"]
    assert not watched.firing


def test_what_a_look_cannot_tell_stays_as_it_was() -> None:
    watched, _ = turned(Watched(), {wrong().key: wrong()}, 1)
    assert turned(watched, {}, 2) == (watched, ())


def test_a_kind_looked_at_as_a_whole_recovers_what_is_not_wrong_now() -> None:
    halt, other = wrong("a", kind="halt"), wrong("b", kind="lag")
    watched, _ = turned(Watched(), {halt.key: halt, other.key: other}, 1)
    assert levels(watched, "halt", ()) == {halt.key: None}
    assert levels(watched, "halt", [halt]) == {halt.key: halt}


def test_edges_of_one_section_are_one_notice_and_a_recovery_is_another() -> None:
    days = {c.key: c for c in (wrong(partition=f"2024-08-{n:02}") for n in range(1, 10))}
    elsewhere = wrong("b", section="elsewhere")
    watched, alerts = turned(Watched(), {**days, elsewhere.key: elsewhere}, 1)
    assert [len(notice.alerts) for notice in grouped(alerts)] == [1, 9]
    watched, alerts = turned(watched, {**dict.fromkeys(days), elsewhere.key: None}, 2)
    assert [(n.turn, len(n.alerts)) for n in grouped(alerts)] == [("recovered", 1), ("recovered", 9)]


def test_a_notice_is_bounded_and_counts_the_others() -> None:
    many = {c.key: c for c in (wrong(partition=f"{n:05}") for n in range(NOTICE_ALERTS_MAX + 7))}
    (notice,) = grouped(turned(Watched(), many, 1)[1])
    assert (len(notice.alerts), notice.more) == (NOTICE_ALERTS_MAX, 7)


@settings(max_examples=30)
@given(looks, st.lists(st.sampled_from(["webhook", "mail"])))
def test_each_channel_gets_every_notice_once_and_in_order_whatever_fails(
    seen: list[dict[str, bool]], failing: list[str]
) -> None:
    watch, made = Watch(), []
    got: dict[str, list[str]] = {"webhook": [], "mail": []}
    for at, look in enumerate(seen):
        changes = {wrong(s).key: wrong(s) if is_wrong else None for s, is_wrong in look.items()}
        watch = watch.noted(changes, Seen(), got, at * SECOND)
    made = [entry.notice.idempotency_key for entry in watch.outbox.entries]
    outbox, now_us = watch.outbox, len(seen) * SECOND
    while outbox.entries:
        now_us += 100 * SECOND
        for channel, taken in got.items():
            for entry in outbox.due(channel, now_us):
                if channel in failing:
                    failing.remove(channel)
                    outbox = outbox.failed(channel, "no", now_us)
                    break
                taken.append(entry.notice.idempotency_key)
                outbox = outbox.sent(channel, entry.notice.idempotency_key)
    assert got == {"webhook": made, "mail": made}
    assert outbox.oldest_us is None


def test_a_channel_that_fails_is_left_alone_for_longer_each_time_and_says_why() -> None:
    watch = Watch().noted({wrong().key: wrong()}, Seen(), ["mail"], 0)
    outbox, waits = watch.outbox, []
    for _ in range(9):
        before_us = outbox.pauses["mail"].until_us if outbox.pauses else 0
        outbox = outbox.failed("mail", "it hung up", before_us)
        waits.append((outbox.pauses["mail"].until_us - before_us) // SECOND)
        assert not outbox.due("mail", outbox.pauses["mail"].until_us - 1)
        assert outbox.due("mail", outbox.pauses["mail"].until_us)
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert outbox.pauses["mail"].reason == "it hung up"
    assert outbox.oldest_us == 0
    assert back_off_seconds(10_000) == BACK_OFF_SECONDS_MAX


def test_a_channel_taken_out_of_the_settings_is_waited_for_no_longer() -> None:
    watch = Watch().noted({wrong().key: wrong()}, Seen(), ["webhook", "mail"], 0)
    key = watch.outbox.entries[0].notice.idempotency_key
    outbox = watch.outbox.sent("webhook", key).failed("mail", "no", 0)
    assert outbox.only(["webhook"]) == Outbox()
    assert outbox.only(["webhook", "mail"]) == outbox


def test_an_outbox_has_a_limit() -> None:
    watch = Watch()
    for n in range(ENTRIES_MAX):
        assert not watch.outbox.is_full
        watch = watch.noted({wrong(f"{n}").key: wrong(f"{n}")}, Seen(), ["mail"], n)
    assert watch.outbox.is_full

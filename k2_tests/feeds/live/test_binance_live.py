from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace

from k2_feeds.binance_live import REPEATED
from k2_feeds.live.buffer import Received
from k2_feeds.live.mending import Known
from k2_resources.spill import Spill
from k2_tests.feeds.live.scene import QUICK, QUOTES, until

FIRST = "SIMBTCUSDT"


def settled(scene):
    """Stop trading and wait until the log has everything of every symbol."""
    scene.running.pause()
    until(lambda: all(scene.has_all(symbol) for symbol in scene.running.symbols))


def test_every_trade_and_quote_arrives_once_and_as_published(hurried):
    with hurried() as scene:
        with scene.collecting(quotes=True) as run:
            until(lambda: len(scene.ids(FIRST)) > 150)
            settled(scene)
            until(
                lambda: (
                    len(scene.sent(QUOTES)) >= sum(len(scene.running.ledger.quotes(s)) for s in scene.running.symbols)
                )
            )
        report = run.ended()
        assert report.is_complete
        assert run.live.buffer.spilled == 0
        for symbol in scene.running.symbols:
            records = {r["source_sequence"]: r for r in scene.sent() if r["symbol"] == symbol}
            published = scene.running.ledger.trades(symbol)
            assert [trade.trade_id for trade in published] == sorted(records)
            for trade in published:
                found = records[trade.trade_id]
                assert (found["price"], found["quantity"]) == (trade.price, trade.quantity)
                assert found["side"] == ("SELL" if trade.buyer_is_maker else "BUY")
            quotes = Counter(r["source_sequence"] for r in scene.sent(QUOTES) if r["symbol"] == symbol)
            assert quotes == Counter(quote[0] for quote in scene.running.ledger.quotes(symbol))
        assert sum(len(scene.ids(symbol)) for symbol in scene.running.symbols) == len(scene.sent())


def test_coverage_says_where_a_collection_began_and_where_it_ended(hurried):
    with hurried() as scene:
        with scene.collecting() as run:
            until(lambda: all(len(scene.ids(symbol)) > 3 for symbol in scene.running.symbols))
            settled(scene)
        run.ended()
        states = scene.states()
        opened = {s["symbol"]: s["first_id"] for s in states["opened"]}
        closed = {s["symbol"]: (s["first_id"], s["last_id"], s["rows"]) for s in states["closed"]}
        for symbol in scene.running.symbols:
            ids = scene.ids(symbol)
            assert opened[symbol] == min(ids)
            assert closed[symbol] == (min(ids), max(ids), len(ids))
        assert closed["*"][2] == len(scene.sent())


def test_a_rotation_loses_nothing_and_doubles_nothing(hurried):
    with hurried() as scene:
        timing = replace(QUICK, rotate=0.4, overlap=0.15)
        with scene.collecting(timing=timing, quotes=True) as run:
            until(lambda: run.live.intake.counts.replaced["planned"] >= 4)
            settled(scene)
        report = run.ended()
        assert report.passed_over[REPEATED] > 0
        for symbol in scene.running.symbols:
            assert set(scene.ids(symbol).values()) == {1}
            quotes = Counter(r["source_sequence"] for r in scene.sent(QUOTES) if r["symbol"] == symbol)
            assert set(quotes.values()) == {1}
        assert run.live.mending.counts.holes == 0


def test_holes_are_filled_from_rest_and_what_is_not_there_is_stated(hurried):
    with hurried() as scene:
        with scene.collecting() as run:
            until(lambda: len(scene.ids(FIRST)) > 20)
            inject = scene.running.faults.inject
            for kind, count in (("drop", 12), ("truncate", 4), ("reorder", 5), ("duplicate", 5), ("garbage", 3)):
                inject(kind, symbol=FIRST, count=count, one_in=3)
            inject("absent", symbol=FIRST, count=3, one_in=5)
            until(lambda: not scene.running.faults.active())
            time.sleep(0.2)
            settled(scene)
            absent = {(number, number) for _session, number in scene.running.ledger.absent(FIRST)}
            until(lambda: len(scene.states().get("absent_at_source", ())) >= len(absent))
        report = run.ended()
        stated = {(s["first_id"], s["last_id"]) for s in scene.states()["absent_at_source"]}
        assert stated == absent
        assert scene.states()["backfilling"]
        assert report.rejected == 4 + 3
        assert report.acknowledged == report.sent
        assert run.live.mending.counts.filled >= 12 + 4
        assert run.live.mending.holes == 0


TROUBLES = (
    ("drop", {"count": 10, "one_in": 5}),
    ("cut", {}),
    ("delay", {"count": 5, "one_in": 3, "seconds": 0.2}),
    ("half_open", {}),
    ("rest_429", {"count": 2, "seconds": 1.0}),
    ("duplicate", {"count": 10, "one_in": 3}),
    ("server_shutdown", {"seconds": 0.5}),
    ("clock_skew", {"seconds": 2.0}),
    ("truncate", {"count": 5, "one_in": 7}),
    ("rest_5xx", {"count": 3}),
    ("tear", {}),
    ("refuse", {"count": 2}),
    ("reorder", {"count": 10, "one_in": 3}),
    ("cut", {}),
    ("absent", {"count": 3, "one_in": 10}),
    ("garbage", {"count": 5}),
)


def test_whatever_goes_wrong_in_turn_nothing_is_lost_or_doubled(hurried):
    timing = replace(QUICK, rotate=1.0, silence=0.7)
    with hurried(trades_per_second=8.0) as scene:
        with scene.collecting(timing=timing) as run:
            until(lambda: all(scene.ids(symbol) for symbol in scene.running.symbols))
            for kind, options in TROUBLES:
                scene.running.faults.inject(kind, **options)
                time.sleep(0.3)
            scene.running.faults.clear()
            time.sleep(1.0)  # what was lost last shows only when something comes after it
            settled(scene)
        run.ended()
        counts = run.live.intake.counts
        assert counts.replaced.total() >= 4
        assert counts.failures >= 1
        assert run.live.mending.counts.filled > 10
        for symbol in scene.running.symbols:
            assert set(scene.ids(symbol).values()) == {1}
            assert scene.has_all(symbol)


def test_frames_that_change_places_open_no_second_hole(hurried):
    with hurried() as scene:
        with scene.collecting(patience_seconds=1.0) as run:
            scene.running.faults.inject("reorder", count=30, one_in=4)
            until(lambda: not scene.running.faults.active())
            time.sleep(0.2)
            settled(scene)
            until(lambda: not run.live.mending.holes)
        run.ended()
        assert run.live.mending.counts.filled == 0
        assert "backfilling" not in scene.states()
        assert run.live.mending.counts.holes > 0


def test_what_was_traded_while_nobody_listened_is_fetched_at_the_next_start(hurried):
    with hurried() as scene:
        with scene.collecting() as first:
            until(lambda: len(scene.ids(FIRST)) > 20)
        first.ended()
        known = {symbol: Known(max(scene.ids(symbol))) for symbol in scene.running.symbols if scene.ids(symbol)}
        before = scene.running.ledger.trade_count(FIRST)
        until(lambda: scene.running.ledger.trade_count(FIRST) > before + 30)
        with scene.collecting(known=known.get) as second:
            until(lambda: second.live.mending.counts.filled > 30)
            settled(scene)
        second.ended()
        assert scene.has_all(FIRST)
        assert set(scene.ids(FIRST).values()) == {1}


def test_without_repair_it_is_stated_that_nobody_collected(hurried):
    with hurried() as scene:
        with scene.collecting(symbols=[FIRST], repair=False, known={FIRST: Known(0)}.get) as run:
            first = min(until(lambda: scene.ids(FIRST)))
            if first > 1:
                (stated,) = until(lambda: scene.states().get("not_collected"))
                assert (stated["symbol"], stated["first_id"], stated["last_id"]) == (FIRST, 1, first - 1)
        run.ended()
        assert first > 1


def test_ids_that_begin_anew_are_collected_and_ask_rest_for_nothing(hurried):
    with hurried() as scene:
        with scene.collecting(symbols=[FIRST]) as run:
            until(lambda: len(scene.ids(FIRST)) > 30)
            scene.running.faults.inject("id_reset", first_id=1)
            until(
                lambda: 1 in scene.ids(FIRST) and len([t for t in scene.running.ledger.trades(FIRST) if t.session]) > 30
            )
            scene.running.pause()
            published = Counter(t.trade_id for t in scene.running.ledger.trades(FIRST))
            until(lambda: sum(scene.ids(FIRST).values()) >= published.total())
        run.ended()
        assert scene.ids(FIRST) == published
        assert run.live.mending.counts.filled == 0


def test_holes_of_the_numbering_before_are_beyond_recovery(hurried):
    """Over a break of more than an hour of event time the exchange numbers anew, and forgets what it had."""
    with hurried() as scene:
        with scene.collecting(symbols=[FIRST], patience_seconds=60.0) as run:
            until(lambda: len(scene.ids(FIRST)) > 30)
            scene.running.faults.inject("drop", symbol=FIRST)
            until(lambda: run.live.mending.counts.holes)
            scene.running.faults.inject("id_reset", first_id=1, seconds=4_000)
            (told,) = until(lambda: scene.states().get("unrecoverable"))
            assert run.live.sequencer.session(FIRST) == 1
        run.ended()
        assert [told["first_id"]] == [hit.trade_id for hit in scene.running.faults.hits()]
        assert told["gap_id"].startswith(f"binance-trades:{FIRST}:0:")
        assert "numbering 1, not 0" in told["evidence"]


def test_the_first_trades_of_a_numbering_are_asked_for_when_nobody_listened(hurried):
    with hurried(awaits_client=False) as scene:
        until(lambda: scene.running.ledger.trade_count(FIRST) > 20)
        scene.running.faults.inject("id_reset", first_id=3, seconds=4_000)
        until(lambda: len([t for t in scene.running.ledger.trades(FIRST) if t.session]) > 20)
        *_, last = (t for t in scene.running.ledger.trades(FIRST) if not t.session)
        known = Known(last.trade_id, 0, last.time_us)
        with scene.collecting(symbols=[FIRST], known={FIRST: known}.get) as run:
            first = until(lambda: min(scene.ids(FIRST), default=0))
            scene.running.pause()
            published = {t.trade_id for t in scene.running.ledger.trades(FIRST) if t.session}
            until(lambda: set(scene.ids(FIRST)) == published)
        run.ended()
        assert (first > 3, min(published), run.live.sequencer.session(FIRST)) == (True, 3, 1)


def test_frames_of_a_feed_nobody_collects_now_are_neither_sent_nor_lost(hurried):
    frame = b'{"u":7,"s":"SIMBTCUSDT","b":"1.0","B":"1.0","a":"2.0","A":"1.0"}'
    with hurried() as scene:
        left = Spill(scene.folder / "live", 1 << 20)
        left.append(Received(5, frame).pack())
        left.close()
        with scene.collecting(symbols=[FIRST]) as run:
            until(lambda: not run.thread.is_alive())
        assert "--quotes" in run.ended().error
        with scene.collecting(symbols=[FIRST], quotes=True):
            until(lambda: any(record["source_sequence"] == 7 for record in scene.sent(QUOTES)))


def test_what_was_traded_after_a_kill_is_not_collected_either(hurried):
    with hurried() as scene:
        left = Spill(scene.folder / "live", 1 << 20)
        for number in (1, 2):
            trade = f'{{"e":"trade","E":1,"s":"{FIRST}","t":{number},"p":"1","q":"1","T":{number},"m":true}}'
            left.append(Received(number, trade.encode()).pack())
        left.close()
        with scene.collecting(symbols=[FIRST], repair=False):
            (stated,) = until(lambda: scene.states().get("not_collected"))
            first = min(number for number in scene.ids(FIRST) if number > 2)
        assert (stated["first_id"], stated["last_id"]) == (3, first - 1)

"""The kill harness: real processes on a real broker, catalog and disk, killed at every named step, again and again.

`python -m k2_tests.crash.torture --kills 10000` runs it. A lane keeps one home at a time (`scene`): a broker, a
producer that sends repetitions, revisions and poison (`market`), a ledger of what was acknowledged, and workers that
are forked warm and die (`attempts`, `workers`). What happens in a round is drawn from a seed (`rounds`); after each,
`k2_tests.crash.checker` compares the ledger with the lake.
"""

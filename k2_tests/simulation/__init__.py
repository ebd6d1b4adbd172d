"""The protocol of `k2_core.protocol`, unmodified, over ports that lose, delay and reorder, under one seeded scheduler.

    python -m k2_tests.simulation --seeds 0:20000          runs seeds on every core, stops at the first that fails
    python -m k2_tests.simulation --seed 4711 --trace      replays one, step by step
    python -m k2_tests.simulation --seeds 0:500 --mutation no_fence    the same with a deliberate bug

`scheduler`: who goes on, sleeps, dies, or stands still while another does a whole thing. `weather`: what fails in one
seed. `disk`, `cluster` (with the log), `catalog` and `ledger` (tables as compare-and-swap), `desk` (a small verdict over
tokens): the ports. `world`, `nature`, `actors`: who acts on them. `truth`: what really happened, and whether every
version of every table agrees with it. `scenario`: one seed, whole; `campaign`: many. `bugs`, `mutations`: what the truth
must find. `sides`: the simulated ports beside the real ones, for one suite that holds both to the same behaviour.

What it does not have: time (nothing in the protocol waits), a log cut short with its incarnation kept (an unclean
election: acknowledged records are gone before anybody could read them), and a second K2 on the same log.
"""

"""The pure domain of K2: tables, offsets, sequences, verdicts, receipts.

Belongs here: anything that computes an answer from its arguments alone (stdlib, numpy, pyarrow).
Does not: I/O, a clock, the environment, logging, a framework or a store.
"""

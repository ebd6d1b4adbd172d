"""The outside world, one technology per file; plain classes.

Belongs here: everything that talks to a broker, a registry, a catalog, a disk, a clock.
Does not: market-data rules (k2_core) or orchestration. Adapters never call each other; whoever wires them does.
"""

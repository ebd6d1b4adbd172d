"""The protocol: how a range of offsets becomes one commit, whatever dies on the way.

Belongs here: the order of the steps, what a commit relies on, what an unknown outcome means, what may be deleted when.
Everything that touches a log, a catalog or a disk comes in through the ports of `ports`; the simulator of the tests
runs these very lines over ports that lose, delay and reorder. docs/CONSISTENCY.md argues about this room.
"""

"""The parts of a feed that reads sockets for weeks: connections, order, memory, repair, vital signs.

Belongs here: what a live feed of any exchange needs. Does not: an exchange's own wire format.
"""

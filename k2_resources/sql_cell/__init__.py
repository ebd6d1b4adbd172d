"""A process for one query of a stranger.

`python -m k2_resources.sql_cell FD` is the template: a process that has imported everything and opened nothing. For
each query it forks a cell, which gives up files, sockets and other processes (confinement) before it reads the
statement. Data files reach a cell as descriptors open for reading; it has no other way to any file, so what the
statement says decides nothing about what can be touched.

Belongs here: the child's side and the wire. The server's side is k2_api/sql_worker.py; whether a statement may run at
all is for k2_api/sql_guard.py to judge.
"""

"""The `k2` command: thin, one file per command group, each loading what it needs only when it runs.

Belongs here: options, words and exit codes. Does not: anything another program could want to call.
"""

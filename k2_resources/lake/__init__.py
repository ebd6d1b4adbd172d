"""The lake: Iceberg tables in one SQL catalog, and the protocol that commits to them.

Belongs here: everything that imports pyiceberg. `catalog` opens and describes tables, `commit` is the protocol,
`collect` copies receipts to the audit tables, `scans` reads rows, `verify` proves it all. What a row means is core's.
"""

"""The lake: Iceberg tables in one SQL catalog, as the protocol of `k2_core.protocol` commits to them.

Belongs here: everything that imports pyiceberg. `catalog` opens and describes tables, `ledger` commits, collects and
forgets (`staging`, `manifests`, `copies`, `folding`, `retention` are its hands), `durable` writes files that stay,
`scans` reads rows, `verify` proves it all from `evidence`. What a row means is core's.
"""

"""What exists in Dagster, when it runs, what must hold.

Belongs here: assets, checks, sensors, and `engine`, which composes the adapters into the commit protocol and imports
no Dagster. Does not: anything the API needs; assets and API never meet.
"""

"""Avro bodies to Arrow columns, all records of a slice in step: field k of every record with a few numpy operations.

Belongs here: the Avro binary encoding and the resolution of a writer's schema to a reader's, for the shapes that ticks
have. A shape that is not covered is said to be so, never decoded approximately. Does not belong: frames, registries,
tables, and what a row must satisfy.
"""

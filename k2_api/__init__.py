"""The read API: HTTP in front of the lake.

Belongs here: routes, request and answer models, problems, cursors, the plan of a read. A route parses, makes one
call and sends the page. Does not: Dagster, feeds, or anything that writes a table.
"""

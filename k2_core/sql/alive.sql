-- Whether the query engine answers.
SELECT 1 AS alive

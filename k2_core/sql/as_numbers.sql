-- Decimals as JSON numbers, for clients of the original platform that asked for them.
SELECT *
FROM page

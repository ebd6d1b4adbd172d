-- Each message as it was first received.
SELECT *
FROM stored
WHERE revision = 0

-- How many rows the question has, over all its pages.
SELECT count(*) AS total
FROM selected

-- What a stranger's statement sees of a table without a range.
SELECT *
FROM rows

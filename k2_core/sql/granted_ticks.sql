-- What a stranger's statement sees of trades or quotes: the rows of its range, with the columns of the table.
SELECT * EXCLUDE (at_us, source_order, platform_order)
FROM selected

-- Stored bars of one symbol whose windows begin in [start, end). Parameters: $files, $symbol, $exchange, $start, $end.
SELECT *
FROM read_parquet($files, union_by_name = true, hive_partitioning = false)
WHERE symbol = $symbol
    AND ($exchange IS NULL OR exchange = $exchange)
    AND window_start >= $start AND window_start < $end

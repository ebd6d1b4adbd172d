-- The newest revision of each message, decided before any filter: a correction may have moved its print to another
-- minute, day or side, so corrections are read from all files of the symbol, not from those of the asked range.
SELECT stored.*
FROM read_parquet($files, union_by_name = true, hive_partitioning = false) AS stored
ANTI JOIN (
    SELECT message_id, max(revision) AS newest
    FROM read_parquet($corrected_files, union_by_name = true, hive_partitioning = false)
    WHERE revision > 0 AND ($symbol IS NULL OR symbol = $symbol)
    GROUP BY message_id
) AS correction
    ON stored.message_id = correction.message_id AND stored.revision < correction.newest

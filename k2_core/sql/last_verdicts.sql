-- What was said of the newest closed day of every symbol of one table. Grain: exchange and symbol.
SELECT
    exchange,
    symbol,
    arg_max(verdict, (exchange_date, version)) AS verdict,
    max(exchange_date) AS verdict_date
FROM read_parquet($files, union_by_name = true, hive_partitioning = false)
WHERE table_name = $table
GROUP BY exchange, symbol

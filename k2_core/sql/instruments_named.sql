-- Every description of the instruments that were ever called by a symbol, whatever they were called when.
SELECT *
FROM rows
WHERE instrument_id IN (SELECT instrument_id FROM rows WHERE symbol = $symbol)

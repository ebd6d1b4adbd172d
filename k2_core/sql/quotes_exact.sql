-- Decimals as text with all eight digits: JSON numbers are binary fractions to most clients.
SELECT * REPLACE (
    bid_price::VARCHAR AS bid_price,
    bid_quantity::VARCHAR AS bid_quantity,
    ask_price::VARCHAR AS ask_price,
    ask_quantity::VARCHAR AS ask_quantity
)
FROM page

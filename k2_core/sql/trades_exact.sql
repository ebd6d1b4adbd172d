-- Decimals as text with all eight digits: JSON numbers are binary fractions to most clients.
SELECT * REPLACE (price::VARCHAR AS price, quantity::VARCHAR AS quantity)
FROM page

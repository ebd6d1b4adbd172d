-- Of the chosen trades those of some sides, with any of some condition codes, within bounds of price and quantity.
SELECT *
FROM chosen
WHERE TRUE
    AND ($sides IS NULL OR side IN $sides::VARCHAR[])
    AND ($conditions IS NULL OR list_has_any(trade_conditions, $conditions::VARCHAR[]))
    AND ($price_min IS NULL OR price >= $price_min::DECIMAL(38, 8))
    AND ($price_max IS NULL OR price <= $price_max::DECIMAL(38, 8))
    AND ($quantity_min IS NULL OR quantity >= $quantity_min::DECIMAL(38, 8))
    AND ($quantity_max IS NULL OR quantity <= $quantity_max::DECIMAL(38, 8))

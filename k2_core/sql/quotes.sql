-- One JSON object per quote, keys in contract order, and the sort columns a cursor needs.
SELECT
    at_us,
    source_order,
    platform_order,
    message_id,
    to_json({
        'message_id': message_id,
        'revision': revision,
        'quote_id': quote_id,
        'symbol': symbol,
        'exchange': exchange,
        'asset_class': asset_class,
        'currency': currency,
        'timestamp': strftime(timestamp, '%Y-%m-%dT%H:%M:%S.%fZ'),
        'bid_price': bid_price,
        'bid_quantity': bid_quantity,
        'ask_price': ask_price,
        'ask_quantity': ask_quantity,
        'source_sequence': source_sequence,
        'platform_sequence': platform_sequence,
        'ingestion_timestamp': strftime(ingestion_timestamp, '%Y-%m-%dT%H:%M:%S.%fZ'),
        'vendor_data': vendor_data,
        'quality_flags': quality_flags,
        'exchange_date': exchange_date
    })::VARCHAR AS json
FROM shown

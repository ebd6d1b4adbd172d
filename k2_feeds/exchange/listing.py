"""exchangeInfo: which symbols the exchange lists, their rules, and its limits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from k2_feeds.binance_frames import currency_of
from k2_feeds.exchange.refused import Refused
from k2_feeds.exchange.settings import Limits

_ORDER_TYPES = ("LIMIT", "LIMIT_MAKER", "MARKET")


def named_symbols(query: Mapping[str, str], symbols: tuple[str, ...]) -> tuple[str, ...]:
    """Symbols a request names, or all. Raises Refused."""
    if "symbol" in query and "symbols" in query:
        raise Refused(-1128, "Combination of optional parameters invalid.")
    if "symbol" in query:
        names: Any = [query["symbol"]]
    elif "symbols" in query:
        try:
            names = json.loads(query["symbols"])
        except (ValueError, RecursionError):
            names = None
        if not isinstance(names, list) or not names:
            raise Refused(-1100, "Illegal characters found in parameter 'symbols'.")
    else:
        return symbols
    if any(name not in symbols for name in names):
        raise Refused(-1121, "Invalid symbol.")
    return tuple(names)


def exchange_info(symbols: tuple[str, ...], limits: Limits, server_time: int) -> dict[str, Any]:
    """The whole answer. server_time: in the unit asked for."""
    weight = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": limits.weight_max}
    return {
        "timezone": "UTC",
        "serverTime": server_time,
        "rateLimits": [weight],
        "exchangeFilters": [],
        "symbols": [_listing(symbol) for symbol in symbols],
    }


def _listing(symbol: str) -> dict[str, Any]:
    quote = currency_of(symbol)
    return {
        "symbol": symbol,
        "status": "TRADING",
        "baseAsset": symbol.removesuffix(quote),
        "baseAssetPrecision": 8,
        "quoteAsset": quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": list(_ORDER_TYPES),
        "icebergAllowed": True,
        "ocoAllowed": True,
        "otoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": "0.01000000", "maxPrice": "1000000.00000000",
             "tickSize": "0.01000000"},
            {"filterType": "LOT_SIZE", "minQty": "0.00001000", "maxQty": "9000.00000000", "stepSize": "0.00001000"},
            {"filterType": "NOTIONAL", "minNotional": "5.00000000", "applyMinToMarket": True,
             "maxNotional": "9000000.00000000", "applyMaxToMarket": False, "avgPriceMins": 5},
        ],
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["NONE", "EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"],
    }  # fmt: skip

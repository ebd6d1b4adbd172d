"""Binance spot as its servers speak: REST within its weights, streams by its rules. Never what a trade means."""

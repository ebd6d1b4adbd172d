"""A REST request that Binance would answer with 400."""

from __future__ import annotations


class Refused(Exception):
    """Raised where a request cannot be answered; carries Binance's code and words."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

"""A small reader of the Avro binary encoding, written from the specification and from nothing else of ours.

For malformed bytes it is what lockstep is held to: fastavro forgives too much. It reads with the writer's schema alone,
so a reader schema, if any, must ask for the same fields. A record is a dict; whatever is malformed raises Malformed.
"""

from __future__ import annotations

import struct


class Malformed(Exception):
    pass


class Reader:
    def __init__(self, content):
        self.content, self.at = content, 0

    def take(self, n):
        if n < 0 or n > len(self.content) - self.at:
            raise Malformed(f"{n} bytes wanted")
        self.at += n
        return self.content[self.at - n : self.at]

    def varint(self):
        value = 0
        for place in range(10):
            byte = self.take(1)[0]
            value += (byte & 127) << (7 * place)
            if byte < 128:
                if value >= 1 << 64:
                    raise Malformed("more than 64 bits")
                return (value >> 1) ^ -(value & 1)
        raise Malformed("more than ten bytes")

    def below(self, count):
        index = self.varint()
        if not 0 <= index < count:
            raise Malformed(f"{index} of {count}")
        return index

    def blocks(self, one):
        while count := self.varint():
            claimed = None
            if count < 0:
                count, claimed = -count, self.varint()
                if not 0 <= claimed <= len(self.content) - self.at:
                    raise Malformed("a block beyond the record")
            start = self.at
            if count > len(self.content) - self.at:
                raise Malformed("more items than bytes")
            for _ in range(count):
                one()
            if claimed is not None and self.at - start != claimed:
                raise Malformed("a block that lies about its length")

    def read(self, schema):
        if isinstance(schema, list):
            return self.read(schema[self.below(len(schema))])
        if isinstance(schema, str):
            return getattr(self, schema)()
        kind = schema["type"]
        if schema.get("logicalType") == "decimal":
            return self.decimal(schema)
        if kind == "record":
            return {field["name"]: self.read(field["type"]) for field in schema["fields"]}
        if kind == "enum":
            return schema["symbols"][self.below(len(schema["symbols"]))]
        if kind == "fixed":
            return self.take(schema["size"])
        if kind == "array":
            items = []
            self.blocks(lambda: items.append(self.read(schema["items"])))
            return items
        if kind == "map":
            entries = {}

            def entry():
                key = self.read(schema.get("keys", "string"))
                entries[key] = self.read(schema["values"])

            self.blocks(entry)
            return entries
        return self.read(kind)

    def decimal(self, schema):
        content = self.take(schema["size"]) if schema["type"] == "fixed" else self.bytes()
        unscaled = int.from_bytes(content, "big", signed=True)
        if not 1 <= len(content) <= 16 or abs(unscaled) >= 10 ** schema["precision"]:
            raise Malformed("a decimal that does not fit")
        return unscaled

    def null(self):
        return None

    def boolean(self):
        byte = self.take(1)[0]
        if byte > 1:
            raise Malformed("neither true nor false")
        return byte == 1

    def int(self):
        value = self.varint()
        if not -(2**31) <= value < 2**31:
            raise Malformed("more than 32 bits")
        return value

    def long(self):
        return self.varint()

    def float(self):
        return struct.unpack("<f", self.take(4))[0]

    def double(self):
        return struct.unpack("<d", self.take(8))[0]

    def bytes(self):
        return self.take(self.varint())

    def string(self):
        try:
            return self.bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise Malformed("not UTF-8") from error


def record_of(content, schema):
    """The record these bytes are. Raises Malformed."""
    reader = Reader(content)
    record = reader.read(schema)
    if reader.at != len(content):
        raise Malformed("bytes after the record")
    return record

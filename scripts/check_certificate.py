"""Check certificates of audit.days against their rows: `check_certificate.py DAYS DATA [FEED [SYMBOL [DATE]]]`.

DAYS, DATA: a Parquet file or folder, or a .txt file of paths. Folders may hold what compactions replaced and losers of
a race left: rows count below C, and once; where they contradict each other, list what counts (`k2 days files`).
"""

import decimal
import hashlib
import sys
from pathlib import Path

import pyarrow.dataset as ds

DAY = ("feed", "symbol", "exchange_date", "version")
LOG = ("kafka_topic", "kafka_epoch", "kafka_partition", "kafka_offset")
ORDER = ("timestamp", "source_sequence", "platform_sequence", "message_id")
decimal.getcontext().prec = 60  # sums have up to 38 digits


def dataset(given):
    files = Path(given).read_text().splitlines() if given.endswith(".txt") else given
    return ds.dataset(files, format="parquet", exclude_invalid_files=True)


def text(value):
    if isinstance(value, list):
        return ",".join(text(item).replace(",", "\\,") or "\\e" for item in value)
    plain = f"{value:.8f}" if isinstance(value, decimal.Decimal) else str(value)
    return "\\N" if value is None else plain.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")


def problems(day, data):
    names, date, field = day["digest_columns"], day["exchange_date"], ds.field
    columns = {c: field(c) for c in (*names, *LOG, *ORDER, "revision", "exchange_date")}
    where = (field("symbol") == day["symbol"]) & ((field("exchange_date") == date) | (field("revision") > 0))
    held = {tuple(r[k] for k in LOG[:3]): range(r["start"], r["end"]) for r in day["ranges"]}
    vector = {(o["topic"], o["kafka_partition"]): (o["kafka_epoch"], o["next"]) for o in day["offsets"]}
    newest = {}
    for row in data.to_table({**columns, "timestamp": field("timestamp").cast("int64")}, filter=where).to_pylist():
        topic, epoch, partition, offset = (row[k] for k in LOG)
        counts = row["exchange_date"] != date or offset in held.get((topic, epoch, partition), ())
        if counts and (epoch, offset) < vector.get((topic, partition), (0, 0)):
            last = newest.setdefault(row["message_id"], row)
            if last["revision"] == row["revision"] and any(last[c] != row[c] for c in names):
                return [f"{row['message_id']} revision {row['revision']} says two things in these files"]
            newest[row["message_id"]] = max(last, row, key=lambda one: one["revision"])
    rows = [row for row in newest.values() if row["exchange_date"] == date]
    rows.sort(key=lambda row: [-(2**63) if row[k] is None else row[k] for k in ORDER])  # an absent sequence is first
    lines = "".join("\t".join(text(row[c]) for c in names) + "\n" for row in rows)
    found = {"present": len(rows), "sha256": hashlib.sha256(lines.encode()).hexdigest() if rows else None}
    found["sums"] = [{**s, "total": sum(row[s["column"]] or 0 for row in rows)} for s in day["sums"]]
    return [f"{k} is {v}, the certificate says {day[k]}" for k, v in found.items() if v != day[k]]


asked, data, results = sys.argv[3:], dataset(sys.argv[2]), []
for day in dataset(sys.argv[1]).to_table().sort_by([(k, "ascending") for k in DAY]).to_pylist():
    if [str(day[k]) for k in DAY][: len(asked)] == asked and set(day["digest_columns"]) <= set(data.schema.names):
        results.append("; ".join(problems(day, data)))
        print(*(day[k] for k in DAY), f"FAILED: {results[-1]}" if results[-1] else f"holds, {day['present']} rows")
sys.exit(not results or any(results))

"""What enters Kafka: files, captures and simulations become Avro records with natural keys.

Belongs here: reading a source, saying what each of its lines became, sending it, stating what was collected.
Does not: writing a table, judging rows (k2_core), or knowing a broker's client (k2_resources).
Every source line has one outcome: a row sent, a rejection with its reason, or a count of what was passed over.
"""

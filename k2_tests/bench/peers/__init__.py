"""K2 beside others that bring Kafka records into Iceberg tables: one broker, the same records, one run."""

"""The ledger in SQL and the consumer that fills it from Kafka."""

"""What several tests share: programs from outside, brokers, databases, builders of events."""

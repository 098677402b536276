"""The exchange, its queues, and which task goes where."""

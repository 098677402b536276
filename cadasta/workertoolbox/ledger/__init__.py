"""The task ledger: what is written, what is asked, what is forgotten."""

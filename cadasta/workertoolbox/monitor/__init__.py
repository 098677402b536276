"""The monitor: consume, decode, write, acknowledge."""

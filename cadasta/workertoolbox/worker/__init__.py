"""What a worker needs beyond settings."""

"""What happens at a publish."""

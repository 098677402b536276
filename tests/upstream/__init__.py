"""What this project touches of other libraries beyond their public promises."""

"""What the README's figures come from, and the reference's own tests."""

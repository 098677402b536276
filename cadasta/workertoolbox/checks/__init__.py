"""What can be wrong with a deployment, each with its remedy."""

"""Every figure of the README, each beside its rival in the same run."""

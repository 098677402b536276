"""All that one broker needs, a folder for each."""

"""What is here and what is missing: a list of checks, a file per topic, each a plain function to a `Finding`."""

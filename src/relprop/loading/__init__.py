"""Networks by their names, and samples from files. Nothing that a file holds is run."""

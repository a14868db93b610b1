"""Tasks whose truth is known: built by hand, or trained in seconds."""

"""One run, from the request to the record."""

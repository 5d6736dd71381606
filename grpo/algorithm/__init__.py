"""The algorithms: a table of rows, and the pure functions that its cells name."""

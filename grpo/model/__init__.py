"""The model that is trained: loading it, its log-probabilities, and the update."""

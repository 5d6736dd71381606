"""What a run takes of a card, by arithmetic: before a model is loaded."""

"""What is asked: rows of a data set, their prompts, and which of them a step draws."""

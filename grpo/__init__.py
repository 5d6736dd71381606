"""A minimal GRPO / Dr. GRPO reasoning trainer with verifiable rewards. Start reading at grpo/train.py."""

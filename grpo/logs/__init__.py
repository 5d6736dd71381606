"""What is written: metrics, console, wandb, saved rollouts."""

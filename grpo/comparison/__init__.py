"""Groups of runs -> all that is shown of them: panels of curves, a table of quantities, and what they say.

python -m grpo.compare runs/grpo-seed* runs/dr_grpo-seed*
"""

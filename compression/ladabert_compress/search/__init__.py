"""What a run decides by measuring: the split of the budget, and the ratio for a latency.

May import every room but ``cli``.
"""

"""What a student is made of: matrices, factors, masks, ranks, budget, structure.

May import ``measure``, ``data``, ``recipe``, ``files`` and ``errors``.
"""

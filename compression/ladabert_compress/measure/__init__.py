"""What a model predicts and what that is worth, how long it takes, and on which machine.

May import ``data``, ``recipe``, ``files`` and ``errors``.
"""

"""The one loop, what it trains (a teacher or a student), and a whole run.

May import ``teacher`` and every room below it.
"""

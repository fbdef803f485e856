"""The teacher's folder, and whether the teacher knows its task.

May import ``student`` and every room below it.
"""

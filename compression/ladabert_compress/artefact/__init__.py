"""From a finished student to the folder that the service loads: export, verification, temperature, files.

May import ``graph`` and every room below it.
"""

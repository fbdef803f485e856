"""What people read about artefacts: evaluation, bench, the HTML page.

May import ``artefact`` and every room below it.
"""

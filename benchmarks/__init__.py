"""What measures: one file or folder for each thing measured, over `benchmarks.harness`.

`python -m benchmarks` lists them. Imports run down only: a benchmark imports the harness, never the other way round.
"""

"""The paper's evidence, on a teacher and rows of one's own: LadaBERT against its baselines at equal steps."""

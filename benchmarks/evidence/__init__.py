"""LadaBERT against pruning, factorisation, the hybrid without distillation and a student from scratch."""

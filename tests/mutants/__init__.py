"""Seeded faults of the product, each of which the suite must notice: `python -m tests.mutants`, `make mutants`."""

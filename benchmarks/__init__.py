"""Measures gevffi beside its peers: `python -m benchmarks`. How and why: benchmarks/README.md."""

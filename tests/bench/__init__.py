"""Benchmarks: ratios within one run, for machines are noisy. `make bench`, `make bench BENCH=heads`."""

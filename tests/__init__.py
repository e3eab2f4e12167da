"""Tests; a package, so that ``python -m tests.benchmarks`` finds these and not those that others have installed."""

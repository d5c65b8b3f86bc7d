"""Benchmarks: `make bench` runs them all, `python -m tests.bench.NAME` one of them.

Nothing here is a test. What is compared is taken in turns, in one run: figures of one run can be
compared to each other, not to those of another machine or hour.
"""

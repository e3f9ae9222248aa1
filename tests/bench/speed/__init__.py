"""How fast fw is beside what one would take in its place: ratios measured in one process, and
counts.

    make bench                                      all groups; writes docs/performance.md
    PYTHONPATH=tests python -m bench.speed --only training sampling --json FILE

A group is a file with a function `rows`, which takes a size: the whole one is its default, the
smallest is for the tests. Ratios are of CPU seconds on one thread, because the machine may be
shared; what can be counted is counted.
"""

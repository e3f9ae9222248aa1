"""Comparisons that take too long for a test: fw's flagship beside other samplers and other code.

    PYTHONPATH=tests python -m bench.samplers runs/self_guidance/seed0-... ...
    PYTHONPATH=tests python -m bench.peer --seed 0 1 2
    PYTHONPATH=tests python -m bench.agreement runs/self_guidance/latest

Each prints a table in Markdown, of scores that fw's own stages compute. `bench.memory` is about
memory. `bench.speed` (`make
bench`) is about time, not scores.
"""

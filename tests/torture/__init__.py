"""Drivers that mistreat fw on purpose and count what went wrong: `make torture`, or one by one.

    python -m torture --out FOLDER                  all of them, long
    python -m torture.kills --count 50 --seed 0     one of them

Each is a function that takes how much to try, a seed and a folder, and returns a Tally. The same
seed makes the same choices; at which moment a signal reaches a process is the machine's affair.
"""

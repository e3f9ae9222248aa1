"""The contract kit: does a component keep to the contract of its kind?

    from fw.core.testing import check

    def test_the_contract():
        check(Sharpen(scale=1.5))

`check` runs every clause of the kind's contract and reports all that are violated. Installing fw
also gives pytest the fixtures of `fw.core.fixtures`.
"""

from fw.core.testing.contract import Clause, ContractViolated, check, clauses, distinct, violations

__all__ = ["Clause", "ContractViolated", "check", "clauses", "distinct", "violations"]

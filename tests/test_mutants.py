"""The seeded faults of `make mutants` fit the source that they are put into."""

import ast
from pathlib import Path

import pytest
from mutants.seeded import MUTANTS, Mutant

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_fault_fits_one_place_and_its_tests_are_there(mutant: Mutant) -> None:
    source = (ROOT / mutant.path).read_text()
    broken = mutant.applied(source)
    assert ast.dump(ast.parse(broken)) != ast.dump(ast.parse(source)), "it changes what the module does"
    for killer in mutant.killers:
        file, _, test = killer.partition("::")
        assert not test or f"def {test}(" in (ROOT / file).read_text(), killer
        assert (ROOT / file).is_file(), killer


def test_faults_have_names_of_their_own_and_lie_on_both_sides() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 10
    assert {mutant.path.partition("/")[0] for mutant in MUTANTS} == {"common", "client", "server"}

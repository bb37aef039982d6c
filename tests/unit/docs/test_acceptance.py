"""The page of acceptance cases says what the tests show."""

from tests.support.acceptance import CASES, PAGE, render, shown


def test_the_page_is_what_the_tests_say():
    """A reader would trust a case that no test shows any more."""
    assert PAGE.read_text() == render(), "run `python -m tests.support.acceptance`"


def test_every_case_has_a_test_and_every_marker_a_case():
    """A case would be claimed without proof, or a marker would have a wrong number."""
    found = shown()
    assert set(found) == set(CASES), (sorted(set(CASES) - set(found)), sorted(set(found) - set(CASES)))

"""Prove that the simulation can fail: every safeguard of the log, switched off, must show as lost, doubled or leaked mail."""

from __future__ import annotations

import pytest

from tests.sim.safeguards import SAFEGUARDS, Safeguard, control, first_harm, harm_of


@pytest.mark.parametrize("safeguard", SAFEGUARDS, ids=lambda safeguard: safeguard.name)
def test_switched_off_it_is_missed(safeguard: Safeguard):
    """A safeguard whose loss nothing notices is untested, and some day somebody removes it as dead code."""
    found = first_harm(safeguard)
    assert found is not None, f"{safeguard.name} is off, and in {safeguard.seeds} seeds nothing breaks any of {safeguard.harm}"
    print(f"{safeguard.name} off: seed {found.seed}: {harm_of(safeguard, found)[0]}")
    # The same day with the safeguard in place does no harm: it is the safeguard that makes the difference.
    assert harm_of(safeguard, control(safeguard, found.seed)) == []

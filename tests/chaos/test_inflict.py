"""Every kind of fault can be carried out."""

from __future__ import annotations

from unittest.mock import Mock

from chaos.conditions import NotPossibleError
from chaos.faults import FaultKind
from chaos.inflict import Inflictor
from chaos.schedule import Action


def test_every_kind_of_fault_has_its_deed() -> None:
    """One that was forgotten would break a run in the middle."""
    inflictor = Inflictor(Mock(), Mock(), Mock())
    action = Action(kind=FaultKind.REFUSE, delay_s=0.0)
    assert set(FaultKind) == set(inflictor.deeds(action, ""))


def test_a_fault_that_could_not_be_is_counted_with_its_reason() -> None:
    """A campaign that harmed nothing must not look like one that found nothing."""
    host = Mock()
    host.conditions.refuse.side_effect = NotPossibleError("nobody asks")
    inflictor = Inflictor(host, Mock(), Mock())
    inflictor.carry_out(Action(kind=FaultKind.REFUSE, delay_s=0.0))
    inflictor.carry_out(Action(kind=FaultKind.NO_PIDS, delay_s=0.0))
    assert ["pre-accept-refuses: nobody asks"] == inflictor.skipped
    assert ["no-pids"] == inflictor.applied
    assert {FaultKind.REFUSE, FaultKind.NO_PIDS} == inflictor.begun

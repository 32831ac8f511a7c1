"""What somebody did on purpose: frozen layers and pruned weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from deadunits_tb.reading.causes.case import LayerCase, Mask
from deadunits_tb.reading.causes.suspicion import Suspicion
from deadunits_tb.units import Level, UnitState


def pruned_units(case: LayerCase) -> Mask:
    """``bool [units]``: whose incoming weights are exactly zero, unless the whole layer began like that."""
    norms, first = case.at_end("norm_in"), case.at_start("norm_in")
    if norms is None or (first is not None and not first.any()):
        return np.zeros(case.layer.units, bool)
    return np.asarray(norms == 0)


def pruned(case: LayerCase) -> Iterator[Suspicion]:
    """Units without incoming or outgoing weights."""
    within, without = pruned_units(case), case.last == UnitState.DISCONNECTED
    if not (within | without).any():
        return
    yield Suspicion(
        "pruned",
        Level.INFORMATION,
        (case.name,),
        case.onset(within | without),
        0.95,
        (
            *((f"the incoming weights of {case.count(within)} are exactly zero",) if within.any() else ()),
            *((f"the outgoing weights of {case.count(without)} are exactly zero",) if without.any() else ()),
        ),
        (),
        (f"nothing to do if this is meant: {case.name} can be built without these units",),
    )


def frozen(case: LayerCase) -> Iterator[Suspicion]:
    """Layers that are not trained."""
    units = case.last == UnitState.FROZEN
    if units.any():
        again = " and compile the model again" if case.run.run.info.framework.startswith("keras") else ""
        yield Suspicion(
            "frozen_by_user",
            Level.INFORMATION,
            (case.name,),
            case.onset(units),
            1.0,
            (f"the weights of {case.name} are not trainable",),
            (),
            (f"nothing to do if this is meant; otherwise make {case.name} trainable{again}",),
        )

"""Interval bounds of a layer's silent units around an optimizer step, and how that optimizer treats them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from deadunits_tb.capture.certificates import Affine, Normalisation, Part, Terms, certificates
from deadunits_tb.certificate import Certificates
from deadunits_tb.taps.torch.silent_layer import SilentLayer

T = torch.Tensor
_BLOCK = 1 << 20
"""Weights that are worked on at a time, in float64."""
_FIRST_MOMENTS = ("momentum_buffer", "exp_avg")


def sums(one: SilentLayer) -> Any:
    """``[rows, units]`` in float64: upper, lower, size and bias, then scale and shift of a normalisation."""
    parameter = one.weights.parameter.detach()
    device = parameter.device if parameter.device.type in ("cpu", "cuda") else torch.device("cpu")
    rows, picked = one.weights.rows(parameter), torch.from_numpy(one.units).to(parameter.device)
    low, high = one.low.to(device).double(), one.high.to(device).double()
    best = torch.stack([high, low, torch.maximum(low.abs(), high.abs())])  # for positive weights
    worst = torch.stack([low, high, -best[2]])  # for negative ones
    parts = []
    for some in picked.split(max(1, _BLOCK // max(1, int(rows.shape[1])))):
        weights = rows[some].to(device).double()
        up, down = weights.clamp(min=0), weights.clamp(max=0)
        own = some.to(device)
        parts.append(_product(up, one.spread(best, own)) + _product(down, one.spread(worst, own)))
    summed = torch.cat(parts, 1)
    vectors = [(one.bias, 0.0)]
    if one.norm is not None:
        vectors += [(one.norm.scale, 1.0), (one.norm.shift, 0.0)]
    added = [
        torch.full_like(summed[0], default) if value is None else value.detach()[picked].to(device).double()
        for value, default in vectors
    ]
    return torch.cat([summed, torch.stack(added)])


def _product(weights: Any, values: Any) -> Any:
    """``[3, k]``: weights ``[k, inputs]`` times values ``[3, inputs]``, or ``[3, k, inputs]``."""
    return values @ weights.t() if values.dim() == 2 else (values * weights).sum(2)


def pending(one: SilentLayer, optimizer: Any, step: int) -> Callable[[], Certificates]:
    """What can be proved of a layer's silent units: summed up now, fetched from the device later."""
    now, norm = sums(one), one.norm
    before = one.before[1] if one.before is not None and one.before[0] == one.calls else None
    picked = torch.from_numpy(one.units).to(one.weights.parameter.device)
    ranges = None if norm is None else [bound[picked.to(bound.device)] for bound in norm.ranges]
    parameters = [(one.weights.parameter, one.weights.rows), (one.bias, None)]
    if norm is not None:
        parameters += [(norm.scale, None), (norm.shift, None)]
    moments = [_momentum(optimizer, parameter, rows, picked) for parameter, rows in parameters]
    settings = [_settings(optimizer, parameter) for parameter, _ in parameters]
    units, since, observations, rounding = one.units, one.since, one.observations, one.rounding
    precision = float(torch.finfo(one.weights.parameter.dtype).eps) / 2
    batch = norm is not None and norm.batch

    def fetch() -> Certificates:
        held = None if ranges is None else [bound.cpu().numpy() for bound in ranges]
        after, was = _affine(now, held), None if before is None else _affine(before, held)
        parts = []
        if before is not None:
            rows = now.cpu().numpy() != before.cpu().numpy()
            changed = [rows[:3].any(axis=0), *rows[3:]]
            carried = [np.zeros(len(units), bool) if moment is None else moment.cpu().numpy() for moment in moments]
            for at, (decays, reach) in enumerate(settings):
                parts.append(Part(changed[at], decays, carried[at], reach, bias=at % 2 == 1))
        varying = None
        if batch and after.normalisation is not None:
            varying = after.normalisation.scale != 0
        return certificates(
            units,
            was,
            after,
            parts,
            rounding=rounding,
            precision=precision,
            varying=varying,
            step=step,
            since=since,
            observations=observations,
        )

    return fetch


def _affine(summed: Any, ranges: list[Any] | None) -> Affine:
    upper, lower, size, bias, *norm = summed.cpu().numpy()
    terms = Terms(upper, lower, size, bias)
    return Affine(terms, None if ranges is None else Normalisation(*norm, *ranges))


def _settings(optimizer: Any, parameter: Any) -> tuple[bool, float]:
    """Whether a parameter decays, and how many times its last change momentum can still add up to."""
    for group in optimizer.param_groups:
        if parameter is not None and any(one is parameter for one in group["params"]):
            decays = bool(group.get("weight_decay")) and bool(group.get("lr", 1.0))
            kept = group.get("momentum") or 0.0
            if "betas" in group:
                first, second = (float(beta) for beta in group["betas"][:2])
                kept = first / math.sqrt(second) if second else 1.0
            return decays, float(kept) / (1 - float(kept)) if kept < 1 else math.inf
    return False, 0.0


def _momentum(optimizer: Any, parameter: Any, rows: Any, picked: Any) -> Any:
    """``bool [k]``: whether the optimizer carries on from earlier steps, None if it keeps nothing."""
    state = optimizer.state.get(parameter) if parameter is not None else None
    moments = [state[name] for name in _FIRST_MOMENTS if isinstance(state.get(name), T)] if state else []
    found = None
    for moment in moments:
        if moment.shape == parameter.shape:
            own = (moment if rows is None else rows(moment))[picked.to(moment.device)]
            moving = own != 0 if own.dim() == 1 else (own != 0).any(1)
            found = moving if found is None else found | moving
    return found

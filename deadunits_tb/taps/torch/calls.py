"""The functions that a forward pass may call, in all their spellings, and what they do to the units."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F

from deadunits_tb.capture.activation_functions import CUSTOM
from deadunits_tb.taps.torch import private as torch_private

T = torch.Tensor


def _spellings(names: str) -> Iterable[Any]:
    """Of each function: in ``torch``, in ``torch.nn.functional``, as a method, and in place."""
    for name in names.split():
        for place in (torch, T, F, torch_private.FUNCTIONS):
            for ending in ("", "_"):
                function = getattr(place, name + ending, None)
                if callable(function):
                    yield function


_NAMES = {
    **{name: name for name in ("relu", "relu6", "tanh", "sigmoid", "gelu", "silu", "mish", "elu", "selu", "celu")},
    **{name: name for name in ("leaky_relu", "prelu", "rrelu", "softplus", "softsign", "threshold", "softmax")},
    **{"logsigmoid": "log_sigmoid", "log_sigmoid": "log_sigmoid", "log_softmax": "log_softmax", "expit": "sigmoid"},
    **{"hardtanh": "hard_tanh", "hardsigmoid": "hard_sigmoid", "hardswish": "hard_silu", "tanhshrink": "tanh_shrink"},
    **{"softshrink": "soft_shrink", "hardshrink": "hard_shrink"},
    **{name: "clamp" for name in ("clamp", "clamp_min", "clip")},
}
ACTIVATIONS: Mapping[Any, str] = {
    function: name for spelling, name in _NAMES.items() for function in _spellings(spelling)
}
"""Function to the field's name of it; ``clamp`` and some others go by their arguments, as :func:`activation` says."""
PASSING = frozenset(
    _spellings(
        "batch_norm layer_norm group_norm instance_norm rms_norm local_response_norm normalize dropout dropout1d "
        "dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout max_pool1d max_pool2d max_pool3d "
        "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d "
        "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d contiguous clone to float half bfloat16 double "
        "type type_as cpu cuda pad interpolate upsample detach requires_grad alias"
    )
)
"""Hand units on, each in its place."""
SUMS = frozenset({*_spellings("add sub subtract"), T.__add__, T.__radd__, T.__iadd__, T.__sub__, T.__isub__})
"""Belong to everything that enters them: a bias, a residual connection."""
SCALINGS = frozenset(
    {
        *_spellings("mul multiply div divide true_divide"),
        T.__mul__,
        T.__rmul__,
        T.__imul__,
        T.__truediv__,
        T.__itruediv__,
    }
)
"""By one number hand units on; of two tensors they are a gate."""
RESHAPES = frozenset(_spellings("reshape view flatten unflatten squeeze unsqueeze"))
PERMUTATIONS = frozenset(
    {*_spellings("permute transpose swapaxes swapdims movedim moveaxis t"), T.T.__get__, T.mT.__get__}
)
REDUCTIONS = frozenset(_spellings("mean amax max_pool"))
CONCATENATIONS = frozenset(_spellings("cat concat concatenate"))
INNER_LAYERS = frozenset({F.multi_head_attention_forward, *_spellings("lstm gru rnn_tanh rnn_relu")})
"""Take units in as linear layers do, but with weights that are not told apart here."""
LINEAR = F.linear
EMBEDDING = F.embedding
PRODUCTS = frozenset({torch.matmul, T.matmul, T.__matmul__, torch.mm, T.mm})
"""``x @ weight``."""
ADDED_PRODUCT = frozenset({torch.addmm, T.addmm})
"""``bias + x @ weight``."""
CONVOLUTIONS = frozenset(_spellings("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"))
TRANSPOSED = frozenset(_spellings("conv_transpose1d conv_transpose2d conv_transpose3d"))
LOSSES = frozenset(
    _spellings(
        "cross_entropy nll_loss binary_cross_entropy binary_cross_entropy_with_logits mse_loss l1_loss smooth_l1_loss "
        "huber_loss kl_div gaussian_nll_loss poisson_nll_loss ctc_loss hinge_embedding_loss margin_ranking_loss "
        "multi_margin_loss multilabel_margin_loss multilabel_soft_margin_loss soft_margin_loss cosine_embedding_loss "
        "triplet_margin_loss triplet_margin_with_distance_loss"
    )
)
LOOKS = frozenset(
    {
        *_spellings(
            "size dim numel nelement element_size is_floating_point is_complex is_contiguous stride data_ptr item "
            "get_device register_hook retain_grad zeros_like ones_like empty_like full_like new_zeros "
            "new_ones new_empty new_full new_tensor isnan isinf isfinite tolist numpy"
        ),
        T.shape.__get__,
    }
    | {T.dtype.__get__, T.device.__get__, T.requires_grad.__get__, T.grad_fn.__get__, T.is_leaf.__get__}
    | {T.layout.__get__, T.is_cuda.__get__, T.ndim.__get__, T.is_nested.__get__, T.is_sparse.__get__}
)
"""Take nothing in."""


def activation(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], rank: int, axis: int) -> str | None:
    """The field's name of an activation function that is called on units; None for what is none.

    Args:
        function: Called.
        args: Its arguments, the tensor first.
        kwargs: Others.
        rank: Axes of the tensor.
        axis: Of the units.
    """
    name = ACTIVATIONS.get(function)
    if name is None:
        return None
    rest = args[1:]

    def given(at: int, *names: str) -> Any:
        return rest[at] if len(rest) > at else next((kwargs[one] for one in names if one in kwargs), None)

    if name == "clamp":
        low, high = given(0, "min"), given(1, "max")
        if not all(bound is None or isinstance(bound, (int, float)) for bound in (low, high)):
            return None
        known = {(0, None): "relu", (0, 6): "relu6", (-1, 1): "hard_tanh"}
        return known.get((low, high), CUSTOM if low == 0 else None)
    if name == "hard_tanh":
        bounds = given(0, "min_val"), given(1, "max_val")
        return {(0, 6): "relu6", (-1, 1): "hard_tanh", (None, None): "hard_tanh"}.get(bounds, CUSTOM)
    if name == "threshold":
        return "threshold" if given(1, "value") == 0 and (given(0, "threshold") or 0) >= 0 else CUSTOM
    if name in ("softmax", "log_softmax"):
        dim = given(0, "dim")
        return name if isinstance(dim, int) and dim % rank == axis else None
    return name


def product(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, Any, int]:
    """What a call with weights takes in, the parameter that its weights are (of), and the axis of the units there."""
    at = 2 if function in ADDED_PRODUCT else 1
    source = args[at - 1] if len(args) >= at else kwargs.get("input")
    weight = args[at] if len(args) > at else kwargs.get("weight", kwargs.get("other", kwargs.get("mat2")))
    parameter = weight._base if isinstance(weight, T) and weight._base is not None else weight
    plain = function is not LINEAR and function not in CONVOLUTIONS
    axis = 1 if function in TRANSPOSED or plain else 0
    if isinstance(parameter, T) and parameter is not weight:  # x @ weight.T
        if weight.dim() != 2 or parameter.dim() != 2:
            parameter = None
        elif weight.stride() != parameter.stride() or weight.shape != parameter.shape:
            axis = 1 - axis
    return source, parameter, axis

"""What looking at weights needs of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from deadunits_tb.taps.columns import Columns, random_numbers


class _TorchDevice:
    """Tensors of PyTorch."""

    def copy(self, value: Any) -> Any:
        return value.clone()

    def matrix(self, columns: Columns, value: Any) -> Any:
        return value.permute(columns.order).float().reshape(columns.rows, columns.units)

    def project(self, matrix: Any) -> list[Any]:
        signs, odd = (torch.from_numpy(numbers) for numbers in random_numbers(len(matrix)))
        digest = (matrix.contiguous().view(torch.int32).to(torch.int64) * odd.to(matrix.device)).sum(0)
        return [signs.to(matrix) @ matrix, digest, (matrix * matrix).sum(0).sqrt()]

    def where(self, condition: Any, one: Any, other: Any) -> Any:
        return torch.where(condition, one, other)

    def concatenate(self, vectors: list[Any]) -> Any:
        return torch.cat(vectors) if vectors else torch.zeros(0)

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    def numpy(self, vector: Any) -> npt.NDArray[np.floating]:
        return np.asarray(vector.cpu())


DEVICE = _TorchDevice()

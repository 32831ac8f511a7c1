"""What the plugin's entry module costs a user's TensorBoard at start: at most 5 ms beyond TensorBoard itself.

Each sample is a fresh Python process in the state in which TensorBoard loads its entry points: ``tensorboard.default``
is imported. Prints medians and ranges.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

LIMIT_MS = 5.0
SAMPLES = 9
_CODE = """
import time
import tensorboard.default
start = time.perf_counter()
import {module}
print((time.perf_counter() - start) * 1e3)
"""


def milliseconds(module: str) -> list[float]:
    """Time to import a module in fresh processes that have TensorBoard already, sorted."""
    command = [sys.executable, "-c", _CODE.format(module=module)]
    outputs = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(SAMPLES)]
    return sorted(float(output) for output in outputs)


def main() -> None:
    """Print the table."""
    print(f"{'import':<42}{'median ms':>10}{'range ms':>18}")
    for module in ("deadunits_tb.serving.loader", "deadunits_tb.serving.plugin"):
        found = milliseconds(module)
        print(f"{module:<42}{statistics.median(found):>10.2f}{f'{found[0]:.2f} to {found[-1]:.2f}':>18}")
    print(f"limit for the first, the entry module: {LIMIT_MS:g} ms; the second comes when TensorBoard loads the plugin")


if __name__ == "__main__":
    main()

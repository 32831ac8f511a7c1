"""What TensorBoard's entry point ``tensorboard_plugins`` names.

An ImportError here, or an exception in :meth:`DeadUnitsLoader.fix_flags`, would end the user's whole TensorBoard. So
this module imports the standard library and TensorBoard's base class only; everything else waits for
:meth:`DeadUnitsLoader.load`, whose errors TensorBoard keeps to itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorboard.plugins import base_plugin

_PLUGIN_NAME = "dead_units"  # as metadata.PLUGIN_NAME, which is not imported here; a test holds them together


class DeadUnitsLoader(base_plugin.TBLoader):  # type: ignore[misc]  # TensorBoard has no types
    """Has TensorBoard keep every record of ours, then makes the plugin."""

    def fix_flags(self, flags: Any) -> None:
        """Ask both data servers for all records (0) unless the user's ``--samples_per_plugin`` says otherwise.

        Without it TensorBoard keeps 10 records per tag, or 100 with its Rust data server. Never raises.
        """
        try:
            wanted = getattr(flags, "samples_per_plugin", None)
            if not wanted or isinstance(wanted, Mapping):
                flags.samples_per_plugin = {_PLUGIN_NAME: 0, **(wanted or {})}
        except Exception:  # any error here ends TensorBoard; without the flag the tab merely shows fewer records
            return

    def load(self, context: Any) -> Any:
        """Make the plugin.

        Args:
            context: TensorBoard's ``TBContext``.

        Returns:
            The plugin; None, which TensorBoard skips, where there is no data provider to read through.
        """
        if context.data_provider is None:
            return None
        from deadunits_tb.serving.plugin import DeadUnitsPlugin

        return DeadUnitsPlugin(context)

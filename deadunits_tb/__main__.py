"""``python -m deadunits_tb`` is the command ``deadunits``."""

from deadunits_tb.cli import main

main(prog_name="deadunits")

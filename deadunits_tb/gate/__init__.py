"""Acting on verdicts: limits that a pipeline can fail on, and tables that other tools can read."""

"""The read side: from a TensorBoard ``DataProvider`` to histories, verdicts, explanations and reports. No HTTP."""

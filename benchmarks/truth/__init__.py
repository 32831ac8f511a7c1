"""Verdicts and causes against the truth: real training runs with states and causes planted at known units and steps.

The truth of every step is an exhaustive pass over the whole data set with the weights of that step, by code of its own
(:mod:`benchmarks.truth.exhaustive`) that knows nothing of the statistics that the package records.
"""

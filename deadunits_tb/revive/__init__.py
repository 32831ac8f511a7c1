"""Gives dead units new weights without changing what a network computes at that moment: one module a framework."""

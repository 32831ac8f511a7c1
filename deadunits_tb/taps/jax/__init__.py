"""Reductions, state and weights of JAX, for pure functions of one's own and for Keras."""

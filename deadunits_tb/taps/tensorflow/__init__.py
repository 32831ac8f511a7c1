"""Reductions and weights of TensorFlow, for Keras and for loops of one's own."""

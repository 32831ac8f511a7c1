"""Keras: ``fit`` runs some steps with a second train function that also reduces what passes through the layers."""

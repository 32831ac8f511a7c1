"""How the statistics of units leave a training step of PyTorch."""

"""How statistics leave a training step, framework by framework; what is seen goes to the monitor in ``capture``."""

"""How a pair is trained by gradients: the loop, its step and what is done where it does not stay finite."""

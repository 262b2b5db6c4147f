"""Training of the bundled diffusion prior; the command is ``tools/train_prior.py``."""

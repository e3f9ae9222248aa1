"""How a denoiser is trained."""

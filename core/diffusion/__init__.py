"""D(x; sigma, c): the denoiser, guidance, latents, and how images are generated."""

"""Joint backbones: one network that denoises and recognises."""

"""What lies where in a runs folder."""

STORE = "store"
"""The folder of finished stages, beside those of runs."""

RUN_FILE = "run.json"
"""In a run's folder: what it found, and of which stages."""

MANIFEST = "manifest.json"
"""In a finished stage's folder: what it was made of, and its files with their checksums."""

MODEL = "model.safetensors"
"""In the folder of a stage that makes weights: those that images are drawn of."""

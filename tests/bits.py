"""What the smoke recipe makes, bit for bit, and by which arithmetic.

Two CPUs may round differently, and so may two versions of a library. `arithmetic` is a digest of
the operations that the recipe is made of, without any code of fw: where it is another one, bits
cannot be compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import sklearn
import torch
from torch import Tensor, nn
from torch.nn import functional as F

GOLDEN = Path(__file__).parent / "golden/bits.json"


def products(store: Path) -> dict[str, str]:
    """The sha256 of every file of numbers in a store, by stage and file; how long it took is not
    in them."""
    return {
        file.relative_to(store).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for pattern in ("*/*.safetensors", "*/log.jsonl", "*/scores.json", "*/quality.json")
        for file in sorted(store.glob(pattern))
    }


def arithmetic() -> str:
    """A digest of libraries' versions and of how this CPU rounds, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rounded = hashed(operations())
    finally:
        torch.set_num_threads(threads)
    return f"torch {torch.__version__}, scikit-learn {sklearn.__version__}, {rounded}"


def operations() -> Iterable[Tensor]:
    """Convolutions, normalisation, attention, matrices, their gradients, an optimizer, a
    decomposition."""
    stream = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [
            nn.Conv2d(1, 16, 3, padding=1),
            nn.GroupNorm(8, 16),
            nn.SiLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
        ]
        network = nn.Sequential(
            *layers, nn.GroupNorm(8, 32), nn.SiLU(), nn.Flatten(2), nn.Linear(16, 64), nn.GELU()
        )
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for batch in (64, 250):
        made = network(torch.randn(batch, 1, 8, 8, generator=stream))  # (B, 32, 64)
        loss = F.scaled_dot_product_attention(made, made, made).softmax(dim=2).std()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield made.detach()
    yield from (weight.detach() for weight in network.parameters())
    points = torch.randn(300, 64, generator=stream)
    yield from torch.linalg.svd(points, full_matrices=False)
    yield torch.cdist(points, points[:10])


def hashed(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def record(store: Path) -> None:
    """Write the golden file anew, from the store of a finished smoke run."""
    GOLDEN.write_text(
        json.dumps({"arithmetic": arithmetic(), "products": products(store)}, indent=1) + "\n"
    )

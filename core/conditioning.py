"""Where plugin API 1 had the embeddings of conditions; see kinds/version_1.py for when it goes."""

from fw.core.diffusion.conditioning import INITIAL_STD, ConditionEmbedding, TokenEmbedding

__all__ = ["INITIAL_STD", "ConditionEmbedding", "TokenEmbedding"]

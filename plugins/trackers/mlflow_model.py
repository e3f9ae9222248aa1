"""An arm as a model of MLflow, which `mlflow.pyfunc.load_model` loads wherever fw is installed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from fw.core.kinds.tracker import LOADER
from fw.plugins.trackers.mlflow_library import import_mlflow

EXAMPLE = {"count": 64, "seed": 0, "condition": None}
NAME = "mlflow-model"


def save(package: Path, model: str, run: str) -> Path:
    """Write a packed arm in MLflow's format, beside the package; returns the folder."""
    import_mlflow()
    import mlflow.pyfunc
    import numpy as np
    from mlflow.models import Model
    from mlflow.models.signature import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec
    from mlflow.types.schema import AnyType

    about = json.loads((package / "arm.json").read_text(encoding="utf-8"))
    wanted: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.long, "count"),
        ColSpec(DataType.long, "seed", required=False),
        ColSpec(AnyType(), "condition", required=False),  # a whole number has no null in pandas
    ]
    images = TensorSpec(np.dtype(np.uint8), (-1, *about["shape"]), "images")
    target = package.parent / NAME
    shutil.rmtree(target, ignore_errors=True)
    mlflow.pyfunc.save_model(
        target,
        loader_module=LOADER,
        data_path=str(package),
        mlflow_model=Model(model_id=model, run_id=run),
        signature=ModelSignature(Schema(wanted), Schema([images])),
        input_example=EXAMPLE,
        pip_requirements=about["requirements"],
    )
    shutil.copyfile(package / "README.md", target / "README.md")
    return target

"""``fastnn export``: a trained net as C or ONNX."""

import argparse
from pathlib import Path

from fastnn.tables import short

from . import models
from .options import add_model
from .task import describe_columns

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--to", choices=("c", "onnx"), required=True, help="C99 source and header, or an ONNX graph")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the file; None: named like the model, in the present folder"
    )
    parser.add_argument("--name", help="prefix of all names in C; None: the file's own")


def run(options: argparse.Namespace) -> None:
    from fastnn.export import to_c, to_onnx

    model = models.load(options.model)
    path = options.out or Path(f"{Path(options.model).stem}.{options.to}")
    written = to_c(model.net, path, options.name) if options.to == "c" else (to_onnx(model.net, path),)
    print("written: " + ", ".join(map(str, written)))
    if model.encoder is not None:
        print("its inputs are encoded columns, in this order: " + ", ".join(map(short, model.encoder.features)))
        print("left to the caller: to encode them, and what stands for a missing value (docs/model-file.md)")
        print("\n".join(describe_columns(model.encoder.columns)))
    if model.classes is not None and model.net.output_size > 1:
        print("its outputs are the classes, in this order: " + ", ".join(map(short, model.classes)))

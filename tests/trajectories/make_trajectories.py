"""Records how PyTorch trains small nets in float64: the data of ``test_trajectories.py``.

    python make_trajectories.py

writes plain.npz and batchnorm.npz beside this file. Settings are in fastnn's terms and stored with the numbers, so that
the test needs neither this script nor PyTorch. What PyTorch lacks is written out here from its formula: penalties on
the weights alone, clipping by the exact rule (PyTorch adds 1e-6 to the norm).
"""

import json
import platform
from pathlib import Path

import numpy as np
import torch
from torch import nn

ROWS, INPUTS, OUTPUTS = 52, 6, 3
BATCH_SIZE = 16  # consecutive rows, never shuffled: 16, 16, 16 and a short batch of 4
BATCHES = range(0, ROWS, BATCH_SIZE)
EPOCHS = 25
SNAPSHOTS = (5, 25)  # epochs after which the parameters are recorded: 20 and 100 steps
PROBES = 4  # rows whose outputs in evaluation mode are recorded at the end

# Widths that fill no vector; BatchNorm once before and once after an activation, and once with unusual settings.
FAMILIES = {
    "plain": [
        ("Dense", {"units": 7}),
        ("Tanh", {}),
        ("Dense", {"units": 5}),
        ("ELU", {}),
        ("Dense", {"units": OUTPUTS}),
    ],
    "batchnorm": [
        ("Dense", {"units": 7}),
        ("BatchNorm", {"eps": 1e-5, "decay": 0.9, "unbiased": True}),
        ("ReLU", {}),
        ("Dense", {"units": 5}),
        ("Tanh", {}),
        ("BatchNorm", {"eps": 1e-3, "decay": 0.8, "unbiased": True}),
        ("Dense", {"units": OUTPUTS}),
    ],
}

OPTIMIZERS = {
    "sgd": ("SGD", {"lr": 0.05}),
    "momentum": ("SGD", {"lr": 0.02, "momentum": 0.9}),
    "nesterov": ("SGD", {"lr": 0.02, "momentum": 0.9, "nesterov": True}),
    "rmsprop": ("RMSprop", {"lr": 0.005, "alpha": 0.95}),
    "adam": ("Adam", {"lr": 0.01, "betas": (0.8, 0.99)}),
    "adamw": ("AdamW", {"lr": 0.01, "weight_decay": 0.1}),
}

LOSSES = {
    "cross_entropy": {"loss": ("CrossEntropy", {}), "targets": "labels"},
    "label_smoothing": {"loss": ("CrossEntropy", {"label_smoothing": 0.1}), "targets": "labels"},
    "soft_labels": {"loss": ("CrossEntropy", {}), "targets": "probabilities"},
    "binary_cross_entropy": {"loss": ("BinaryCrossEntropy", {}), "targets": "frequencies"},
    "mse": {"loss": ("MSE", {}), "targets": "values"},
    "mae": {"loss": ("MAE", {}), "targets": "values"},
    "huber": {"loss": ("Huber", {"delta": 0.6}), "targets": "values"},
    "poisson": {"loss": ("Poisson", {}), "targets": "counts"},
}

# Further settings, each with an optimizer and a loss of the tables above. The plain net alone has those that concern no
# layer in particular.
EXTRAS = {
    "adam-weight_decay": ("adam", "cross_entropy", {"optimizer": {"weight_decay": 0.05}}),
    "sgd-class_weight": ("sgd", "cross_entropy", {"class_weight": [0.5, 1.0, 2.5]}),
    "sgd-clip_norm": ("sgd", "cross_entropy", {"clip": ("ClipNorm", {"v": 0.75})}),
    "sgd-clip_value": ("sgd", "mse", {"clip": ("ClipValue", {"min": -0.25, "max": 0.25})}),
    "sgd-l1": ("sgd", "mse", {"regularizer": ("L1", {"lam": 0.01})}),
    "adam-clip_norm-l2": (
        "adam",
        "mse",
        {"clip": ("ClipNorm", {"v": 0.5}), "regularizer": ("L2", {"lam": 0.01})},
    ),
}
PLAIN_EXTRAS = {
    "rmsprop-large_eps": ("rmsprop", "mse", {"optimizer": {"eps": 1e-2}}),
    "adam-large_eps": ("adam", "mse", {"optimizer": {"eps": 1e-2}}),
    "momentum-clip_tensor_norm": ("momentum", "mse", {"clip": ("ClipNorm", {"v": 0.4, "scope": "tensor"})}),
    "sgd-clip_value-asymmetric": ("sgd", "mse", {"clip": ("ClipValue", {"min": -0.4, "max": 0.25})}),
    "nesterov-elastic_net": ("nesterov", "mse", {"regularizer": ("ElasticNet", {"lam": 0.01, "beta": 0.5})}),
    "momentum-step": ("momentum", "mse", {"schedule": ("step", {"every": 30, "factor": 0.3})}),
    "sgd-exponential": ("sgd", "mse", {"schedule": ("exponential", {"factor": 0.98})}),
    "adam-cosine": ("adam", "mse", {"schedule": ("cosine", {"length": 80, "final": 1e-4})}),
    "adamw-one_cycle": ("adamw", "cross_entropy", {"schedule": ("one_cycle", {"length": 100})}),
}


def make_cases(family: str) -> dict[str, dict]:
    """Every optimizer with every loss, and the extras."""
    cases = {
        f"{rule}-{loss}": {"optimizer": OPTIMIZERS[rule], **LOSSES[loss]} for rule in OPTIMIZERS for loss in LOSSES
    }
    extras = {**EXTRAS, **PLAIN_EXTRAS} if family == "plain" else EXTRAS
    for name, (rule, loss, more) in extras.items():
        kind, settings = OPTIMIZERS[rule]
        cases[name] = {**LOSSES[loss], **more, "optimizer": (kind, {**settings, **more.get("optimizer", {})})}
    return cases


def make_data(random: torch.Generator) -> dict[str, torch.Tensor]:
    """Features, and targets of every kind from one noisy teacher."""
    x = torch.randn(ROWS, INPUTS, generator=random)
    teacher = torch.randn(INPUTS, OUTPUTS, generator=random) / INPUTS**0.5
    signal = x @ teacher + 0.3 * torch.randn(ROWS, OUTPUTS, generator=random)
    return {
        "x": x,
        "labels": signal.argmax(dim=1),
        "probabilities": signal.softmax(dim=1),
        "frequencies": torch.where(torch.rand(ROWS, 1, generator=random) < 0.5, (signal > 0) * 1.0, signal.sigmoid()),
        "values": signal,
        "counts": torch.poisson((signal / 2).exp(), generator=random),
    }


def build(family: str, random: torch.Generator) -> nn.Sequential:
    """The net; everything that could hide behind a default of 0 or 1 starts elsewhere."""
    modules, width = [], INPUTS
    for kind, settings in FAMILIES[family]:
        if kind == "Dense":
            modules.append(nn.Linear(width, settings["units"]))
            width = settings["units"]
        elif kind == "BatchNorm":
            layer = nn.BatchNorm1d(width, eps=settings["eps"], momentum=1 - settings["decay"])
            layer.running_mean.normal_(generator=random)
            layer.running_var.uniform_(0.5, 1.5, generator=random)
            modules.append(layer)
        else:
            modules.append(getattr(nn, kind)())
    for layer in modules:
        for name, parameter in layer.named_parameters():
            if isinstance(layer, nn.BatchNorm1d) and name == "weight":
                nn.init.uniform_(parameter, 0.5, 1.5, generator=random)
            else:
                nn.init.normal_(parameter, 0, 0.4, generator=random)
    return nn.Sequential(*modules)


def tensors(net: nn.Sequential) -> dict[str, np.ndarray]:
    """Copies of parameters and statistics under fastnn's names; weights as (fan_in, fan_out)."""
    copies = {}
    for place, layer in enumerate(net):
        if isinstance(layer, nn.Linear):
            copies |= {f"{place}.weight": layer.weight.T, f"{place}.bias": layer.bias}
        elif isinstance(layer, nn.BatchNorm1d):
            copies |= {f"{place}.gamma": layer.weight, f"{place}.beta": layer.bias}
            copies |= {f"{place}.running_mean": layer.running_mean, f"{place}.running_var": layer.running_var}
    return {name: np.array(value.detach().numpy(), order="C") for name, value in copies.items()}


def make_loss(kind: str, settings: dict, class_weight: list[float] | None) -> nn.Module:
    if kind == "CrossEntropy":
        weight = None if class_weight is None else torch.tensor(class_weight)
        return nn.CrossEntropyLoss(weight=weight, **settings)
    if kind == "Poisson":
        return nn.PoissonNLLLoss(log_input=True, full=False)
    others = {"BinaryCrossEntropy": nn.BCEWithLogitsLoss, "MSE": nn.MSELoss, "MAE": nn.L1Loss, "Huber": nn.HuberLoss}
    return others[kind](**settings)


def make_schedule(optimizer: torch.optim.Optimizer, kind: str, settings: dict) -> torch.optim.lr_scheduler.LRScheduler:
    schedulers = torch.optim.lr_scheduler
    if kind == "step":
        return schedulers.StepLR(optimizer, step_size=settings["every"], gamma=settings["factor"])
    if kind == "exponential":
        return schedulers.ExponentialLR(optimizer, gamma=settings["factor"])
    if kind == "cosine":
        falling = schedulers.CosineAnnealingLR(optimizer, T_max=settings["length"], eta_min=settings["final"])
        # Past its length PyTorch's rises again; fastnn's stays.
        level = schedulers.LambdaLR(optimizer, lambda _: settings["final"] / optimizer.defaults["lr"])
        return schedulers.SequentialLR(optimizer, [falling, level], milestones=[settings["length"]])
    assert kind == "one_cycle"
    peak = optimizer.defaults["lr"]
    return schedulers.OneCycleLR(optimizer, max_lr=peak, total_steps=settings["length"], cycle_momentum=False)


def add_penalty(net: nn.Sequential, kind: str, settings: dict) -> None:
    """Gradient of ``lam sum R(w)`` over the weights of the Dense layers."""
    lam = settings["lam"]
    l1 = 0.0 if kind == "L2" else lam
    l2 = {"L1": 0.0, "L2": lam, "ElasticNet": lam * settings.get("beta", 0.0)}[kind]
    for layer in net:
        if isinstance(layer, nn.Linear):
            layer.weight.grad += l1 * layer.weight.sign() + 2 * l2 * layer.weight


def clip(net: nn.Sequential, kind: str, settings: dict) -> bool:
    """Clip the gradients in place; whether that changed any."""
    gradients = [parameter.grad for parameter in net.parameters()]
    if kind == "ClipValue":
        beyond = any((g < settings["min"]).any() or (g > settings["max"]).any() for g in gradients)
        for g in gradients:
            g.clamp_(settings["min"], settings["max"])
        return bool(beyond)
    v = settings["v"]
    changed = False
    for group in [[g] for g in gradients] if settings.get("scope") == "tensor" else [gradients]:
        norm = sum(g.square().sum() for g in group).sqrt()
        if norm > v:
            changed = True
            for g in group:
                g *= v / norm
    return changed


def train(net: nn.Sequential, data: dict[str, torch.Tensor], case: dict) -> dict[str, np.ndarray]:
    """Losses of every step before its update, snapshots, and outputs in evaluation mode at the end."""
    kind, settings = case["optimizer"]
    optimizer = getattr(torch.optim, kind)(net.parameters(), **settings)
    schedule = make_schedule(optimizer, *case["schedule"]) if "schedule" in case else None
    loss_of = make_loss(*case["loss"], case.get("class_weight"))
    x, y = data["x"], data[case["targets"]]
    losses, clipped, snapshots = [], 0, []
    for epoch in range(1, EPOCHS + 1):
        for first in BATCHES:
            rows = slice(first, first + BATCH_SIZE)
            optimizer.zero_grad()
            loss = loss_of(net(x[rows]), y[rows])
            loss.backward()
            with torch.no_grad():
                if "regularizer" in case:
                    add_penalty(net, *case["regularizer"])
                if "clip" in case:
                    clipped += clip(net, *case["clip"])
            optimizer.step()
            if schedule is not None:
                schedule.step()
            losses.append(loss.item())
        if epoch in SNAPSHOTS:
            snapshots.append(tensors(net))
    if "clip" in case:
        assert 0 < clipped < len(losses), f"{clipped} of {len(losses)} steps clip: that shows one side of the rule"
    net.eval()
    recording = {name: np.stack([snapshot[name] for snapshot in snapshots]) for name in snapshots[0]}
    return {**recording, "losses": np.array(losses), "outputs": net(x[:PROBES]).detach().numpy()}


def record(family: str) -> None:
    cases = make_cases(family)
    data = make_data(torch.Generator().manual_seed(1))
    initial = tensors(build(family, torch.Generator().manual_seed(2)))
    runs = [train(build(family, torch.Generator().manual_seed(2)), data, case) for case in cases.values()]
    about = {
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "batch_size": BATCH_SIZE,
        "epochs": EPOCHS,
        "snapshots": SNAPSHOTS,
        "layers": FAMILIES[family],
        "cases": cases,
    }
    np.savez_compressed(
        Path(__file__).with_name(f"{family}.npz"),
        about=np.array(json.dumps(about)),
        **{name: values.numpy() for name, values in data.items()},
        **{f"initial/{name}": values for name, values in initial.items()},
        **{f"recorded/{name}": np.stack([run[name] for run in runs]) for name in runs[0]},
    )


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for family in FAMILIES:
        record(family)

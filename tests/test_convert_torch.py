"""`from_torch` on real modules. Runs where PyTorch is installed: with the extra [bench], not with [test].

CI installs [test]: there no line of fastnn/convert/torch.py runs. What it shares with the other sources, the checks of
assemble.py, is tested in test_convert.py.
"""

import numpy as np
import pytest

import fastnn as fn

torch = pytest.importorskip("torch")
nn = torch.nn

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}  # relative to the largest output


def difference(net, module, features=6, rows=50):
    """Largest difference of the predictions, relative to the largest; they vary, so that it says something."""
    (dtype,) = {tensor.dtype for tensor in module.parameters()} or {torch.float32}
    x = 2 * torch.randn(rows, features, dtype=dtype) + 1
    was_training = module.training
    expected = module.eval()(x).detach().numpy()
    module.train(was_training)
    got = net.predict(x.numpy())
    assert got.shape == expected.shape
    assert np.ptp(expected) > 1e-2 * np.abs(expected).max()
    return np.abs(got - expected).max() / np.abs(expected).max()


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(3)


def trained(*layers, dtype=torch.float32, features=6):
    """The layers with statistics and affine parameters away from 0 and 1, and weights that keep rows apart."""
    module = nn.Sequential(*layers).to(dtype)
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight, gain=2)
        if isinstance(layer, nn.BatchNorm1d) and layer.affine:
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    for _ in range(5):
        module(2 * torch.randn(40, features, dtype=dtype) + 1)
    return module


PAIRS = [
    (nn.ReLU(), fn.ReLU()),
    (nn.LeakyReLU(0.2), fn.LeakyReLU(0.2)),
    (nn.ELU(0.7), fn.ELU(0.7)),
    (nn.SELU(), fn.SELU()),
    (nn.GELU(), fn.GELU()),
    (nn.SiLU(inplace=True), fn.SiLU()),
    (nn.Softplus(), fn.Softplus()),
    (nn.Tanh(), fn.Tanh()),
    (nn.Sigmoid(), fn.Sigmoid()),
    (nn.Softmax(dim=1), fn.Softmax()),
    (nn.Softmax(dim=-1), fn.Softmax()),
    (nn.Identity(), fn.Identity()),
    (nn.Dropout(0.25), fn.Dropout(0.25)),
    (nn.BatchNorm1d(9, eps=1e-3, momentum=0.25), fn.BatchNorm(1e-3, 0.75, unbiased=True)),
    (nn.BatchNorm1d(9, affine=False), fn.BatchNorm(unbiased=True)),
]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("layer", "expected"), PAIRS, ids=lambda value: type(value).__name__)
def test_each_module(layer, expected, dtype):
    module = trained(nn.Linear(6, 9), layer, nn.Linear(9, 3, bias=False), dtype=dtype)
    net = fn.from_torch(module, seed=5)
    assert net.layers == (fn.Dense(9), expected, fn.Dense(3, use_bias=False))
    assert str(dtype) == f"torch.{net.dtype}"
    assert net.seed == 5
    tolerance = 1e-8 if isinstance(layer, nn.Softplus) else TOLERANCE[dtype]  # PyTorch's stops at its threshold
    assert difference(net, module) <= max(tolerance, TOLERANCE[dtype])


def test_places_and_values():
    module = trained(nn.Flatten(), nn.Linear(6, 4), nn.Sequential(nn.BatchNorm1d(4), nn.Sequential(nn.Tanh())))
    parameters = fn.from_torch(module).parameters()
    norm = module[2][0]
    for name, tensor in {
        "1.weight": module[1].weight.T,
        "1.bias": module[1].bias,
        "2.gamma": norm.weight,
        "2.beta": norm.bias,
        "2.running_mean": norm.running_mean,
        "2.running_var": norm.running_var,
    }.items():
        assert (parameters.pop(name) == tensor.detach().numpy()).all(), name
    assert not parameters


def test_a_module_without_affine_parameters_gets_trainable_ones():
    parameters = fn.from_torch(trained(nn.Linear(6, 4), nn.BatchNorm1d(4, affine=False))).parameters(trainable=True)
    assert (parameters["1.gamma"] == 1).all()
    assert (parameters["1.beta"] == 0).all()


def test_frozen_parameters_stay_frozen():
    module = trained(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2, bias=False))
    for parameter in module[:2].parameters():
        parameter.requires_grad_(False)
    net = fn.from_torch(module)
    assert net.parameters(trainable=True).keys() == {"3.weight"}
    assert [net.layers[place].trainable for place in (0, 1, 3)] == [False, False, True]
    module[0].weight.requires_grad_(True)
    with pytest.raises(ValueError, match=r"module 0 \(Linear\): requires_grad must be the same for all parameters"):
        fn.from_torch(module)


def test_the_net_is_independent_and_the_module_unchanged():
    module = trained(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    net = fn.from_torch(module)
    for view in net.parameters().values():
        view[...] = 7
    assert module.training
    assert all((tensor == before[name]).all() for name, tensor in module.state_dict().items())


def test_shared_modules_become_independent_layers():
    act, shared = nn.Tanh(), nn.Linear(6, 6)
    module = trained(shared, act, shared, act)
    net = fn.from_torch(module)
    assert net.layers == (fn.Dense(6), fn.Tanh(), fn.Dense(6), fn.Tanh())
    assert difference(net, module) <= 1e-5


def test_float64_agrees_through_a_deep_net():
    layers = [layer for width in (9, 8, 7) for layer in (nn.LazyLinear(width), nn.BatchNorm1d(width), nn.GELU())]
    module = nn.Sequential(*layers, nn.LazyLinear(2)).to(torch.float64)
    with pytest.raises(ValueError, match=r"module 0 \(LazyLinear\) has parameters without values"):
        fn.from_torch(module)
    for _ in range(3):
        module(torch.randn(40, 6, dtype=torch.float64))
    assert difference(fn.from_torch(module), module) <= 1e-12


# ---- dtypes ----


def test_dtypes():
    module = trained(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    assert fn.from_torch(module, dtype="float64").dtype == "float64"
    assert fn.from_torch(nn.Sequential(nn.ReLU(), nn.Linear(3, 2)).double(), dtype="float32").dtype == "float32"
    half = nn.Sequential(nn.Linear(6, 4)).to(torch.bfloat16)
    with pytest.raises(ValueError, match="throughout, got bfloat16: say dtype='float32'"):
        fn.from_torch(half)
    weight = fn.from_torch(half, dtype="float32").parameters()["0.weight"]
    assert (weight == half[0].weight.T.float().detach().numpy()).all()
    with pytest.raises(ValueError, match="throughout, got float32, float64: say dtype="):
        fn.from_torch(nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2).double()))
    with pytest.raises(ValueError, match=r"weight must hold real numbers, got torch\.complex64"):
        fn.from_torch(nn.Sequential(nn.Linear(6, 4, dtype=torch.complex64)))


def test_numbers_that_are_not_finite_are_refused():
    module = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2)).double()
    with torch.no_grad():
        module[1].bias[0] = 1e39
    assert fn.from_torch(module).dtype == "float64"
    with pytest.raises(
        ValueError, match=r"module 1 \(Linear\): bias holds NaN, infinity or numbers too large for float32"
    ):
        fn.from_torch(module, dtype="float32")


# ---- what is refused ----


class OtherForward(nn.Linear):
    def forward(self, x):
        return super().forward(x) + 1


class SameForward(nn.Linear):
    pass


class Branching(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


def linear(**changes):
    layer = nn.Linear(6, 6)
    for name, value in changes.items():
        setattr(layer, name, value)
    return layer


def hooked(layer):
    layer.register_forward_hook(lambda *_: None)
    return layer


REFUSED = {
    "another class": (nn.Conv1d(1, 1, 1), TypeError, r"module 1\.0 \(Conv1d\) is not supported here; supported is"),
    "another forward": (OtherForward(6, 6), TypeError, r"module 1\.0 \(OtherForward\) is not supported"),
    "a forward of its own": (linear(forward=abs), TypeError, r"module 1\.0 \(Linear\) is not supported"),
    "another sequence": (Branching(nn.ReLU()), TypeError, r"module 1\.0 \(Branching\) is not supported"),
    "flatten inside": (nn.Flatten(), TypeError, r"module 1\.0 \(Flatten\) is not supported here"),
    "other dropout": (nn.AlphaDropout(0.5), TypeError, "AlphaDropout"),
    "a hook": (hooked(nn.ReLU()), ValueError, r"module 1\.0 \(ReLU\) has forward hooks: remove them first"),
    "a hooked sequence": (
        hooked(nn.Sequential(nn.ReLU())),
        ValueError,
        r"module 1\.0 \(Sequential\) has forward hooks",
    ),
    "no statistics": (nn.BatchNorm1d(6, track_running_stats=False), ValueError, "track_running_stats must be True"),
    "no momentum": (nn.BatchNorm1d(6, momentum=None), ValueError, "momentum must be a number, got None"),
    "a momentum of 0": (nn.BatchNorm1d(6, momentum=0.0), ValueError, r"decay must be a number in \[0, 1\), got 1.0"),
    "gelu by tanh": (nn.GELU("tanh"), ValueError, "approximate must be a str among {'none'}, got 'tanh'"),
    "another softplus": (nn.Softplus(2), ValueError, "needs beta = 1 and threshold >= 20, got 2.* and 20"),
    "an early threshold": (nn.Softplus(1, 5), ValueError, "needs beta = 1 and threshold >= 20, got 1.* and 5"),
    "softmax over rows": (nn.Softmax(0), ValueError, "dim must be 1 or -1, got 0"),
    "everything dropped": (nn.Dropout(1.0), ValueError, r"module 1\.0 \(Dropout\): p must be a number in"),
    "a negative alpha": (nn.ELU(-1.0), ValueError, r"module 1\.0 \(ELU\): alpha must be"),
    "another width": (nn.Linear(5, 2), ValueError, r"module 1\.0 \(Linear\) takes 5 inputs, but gets 6"),
    "no values": (nn.Linear(6, 2, device="meta"), ValueError, "parameters without values"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_the_place_and_the_reason(case):
    layer, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        fn.from_torch(nn.Sequential(nn.Linear(6, 6), nn.Sequential(layer)))


def test_a_root_that_computes_something_else_is_refused():
    with pytest.raises(TypeError, match="got an object of type Branching with another forward"):
        fn.from_torch(Branching(linear()))
    with pytest.raises(ValueError, match="module has forward hooks: remove them first"):
        fn.from_torch(hooked(nn.Sequential(linear())))


def test_derived_classes_with_the_same_forward_are_accepted():
    module = trained(SameForward(6, 4), torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)))
    assert difference(fn.from_torch(module), module) <= 1e-5


def test_what_is_no_sequential_is_refused():
    for value in (nn.Linear(3, 2), 3, nn.ModuleList([nn.ReLU()])):
        with pytest.raises(TypeError, match=r"module must be a torch\.nn\.Sequential, got an object of type"):
            fn.from_torch(value)
    with pytest.raises(ValueError, match="at least one layer, got an empty Sequential"):
        fn.from_torch(nn.Sequential(nn.Sequential()))
    with pytest.raises(ValueError, match="the number of inputs is unknown"):
        fn.from_torch(nn.Sequential(nn.ReLU()))
    with pytest.raises(ValueError, match="needs start_dim = 1"):
        fn.from_torch(nn.Sequential(nn.Flatten(0), nn.Linear(3, 2)))

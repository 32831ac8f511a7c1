"""The runs: states planted in single units, causes planted in whole runs, and healthy twins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from benchmarks.truth.recipe import Plant, Recipe

FUNCTIONS = ("relu", "tanh", "sigmoid", "gelu", "leaky_relu", "relu6")


def states(seeds: int = 2) -> Iterator[Recipe]:
    """Every state, planted at known units and steps of runs that are otherwise healthy."""
    for seed in range(seeds):
        for function in FUNCTIONS:
            relu_like, bounded = function in ("relu", "relu6"), function in ("tanh", "sigmoid", "relu6")
            plants = [
                Plant("prune" if not relu_like else "kill", 0, (0, 1), step=0),
                Plant("cut", 0, (4, 5), step=60),
                Plant("hold", 0, (8, 9), step=80),
                Plant("flat", 1, (4, 5), step=70),
            ]
            if relu_like:
                plants += [
                    Plant("kill", 0, (2, 3), step=50),
                    Plant("kill", 1, (0, 1, 2), step=90),
                ]
                rare = (Plant("rate", 1, (8, 9), value=0.005), Plant("rate", 1, (10, 11), step=60, value=0.002))
                yield Recipe(
                    f"states/{function}-rare-{seed}", function=function, batch=300, steps=120, seed=seed, plants=rare
                )
            else:
                plants = plants[1:]
            if bounded:
                plants.append(Plant("bound", 1, (12, 13), step=100))
            if function != "sigmoid":
                plants.append(Plant("shrink", 0, (12, 13), step=40))
            yield Recipe(
                f"states/{function}-{seed}", function=function, gain=2.0 if "relu" in function else 1.0,
                plants=tuple(plants), seed=seed, steps=300,
            )  # fmt: skip
        yield Recipe(f"states/frozen-{seed}", frozen=(0,), seed=seed, steps=200)
        yield Recipe(f"states/nan-{seed}", plants=(Plant("nan", 1, (3,), step=120),), seed=seed, steps=150)
        yield Recipe(f"states/short-{seed}", seed=seed, steps=30, plants=(Plant("kill", 0, (0, 1), step=5),))


def architectures(seeds: int = 1) -> Iterator[Recipe]:
    """Dead, dying, constant, dormant and saturated units of convolutions, recurrent layers and transformers."""
    for seed in range(seeds):
        for kind, function in (
            ("cnn", "relu"), ("cnn", "relu6"), ("cnn", "leaky_relu"), ("cnn", "tanh"), ("lstm", "relu"),
            ("lstm", "sigmoid"), ("transformer", "gelu"), ("transformer", "relu"), ("transformer", "tanh"),
        ):  # fmt: skip
            last = {"cnn": 2, "lstm": 1, "transformer": 0}[kind]
            plants = [Plant("flat", last, (4, 5), step=70)]
            if function in ("relu", "relu6", "gelu"):
                plants += [Plant("kill", last, (0, 1, 2), step=90)]
            if kind == "lstm":
                plants += [Plant("kill", 0, (0, 1), step=50), Plant("kill", 0, (3,), step=0)]
            if kind == "cnn":
                plants += [Plant("flat", 0, (5,), step=60)]
                if "relu" in function and function != "leaky_relu":
                    plants += [Plant("kill", 0, (0,), step=50), Plant("kill", 1, (1, 2), step=0)]
            if function in ("tanh", "sigmoid"):
                plants += [Plant("bound", last, (12, 13), step=100)]
            if function != "sigmoid":
                plants += [Plant("shrink", last, (16, 17), step=40)]
            yield Recipe(
                f"states/{kind}-{function}-{seed}", architecture=kind, function=function, plants=tuple(plants),
                seed=seed, gain=2.0 if "relu" in function else 1.0, rate=3e-3 if kind == "transformer" else 1e-3,
                steps=260,
            )  # fmt: skip


def causes(seeds: int = 3) -> Iterator[Recipe]:
    """Every cause, in ways of its own."""
    for seed in range(seeds):
        for recipe in (*_causes(), *_causes_elsewhere()):
            yield replace(recipe, name=f"{recipe.name}-{seed}", seed=seed + 10)


def _causes() -> Iterator[Recipe]:
    cause = "learning_rate_too_high"
    yield Recipe("sgd-3", cause, optimizer="sgd", rate=3.0)
    yield Recipe("sgd-2", cause, optimizer="sgd", rate=2.0)
    yield Recipe("momentum-0.5", cause, optimizer="momentum", rate=0.5)
    yield Recipe("adam-0.1", cause, rate=0.1)
    yield Recipe("adam-0.3-deep", cause, rate=0.3, sizes=(64, 32, 32, 32, 10))
    yield Recipe("tanh-adam-0.3", cause, rate=0.3, function="tanh", gain=1.0)
    yield Recipe("sgd-1e4", cause, optimizer="sgd", rate=1e4)
    cause = "learning_rate_too_low"
    yield Recipe("adam-1e-7", cause, rate=1e-7)
    yield Recipe("sgd-1e-5", cause, optimizer="sgd", rate=1e-5)
    yield Recipe("tanh-sgd-1e-5", cause, optimizer="sgd", rate=1e-5, function="tanh", gain=1.0)
    yield Recipe("leaky-adam-1e-7", cause, rate=1e-7, function="leaky_relu")
    cause = "poor_initialization"
    yield Recipe("mean--0.5", cause, mean=-0.5)
    yield Recipe("mean--0.05-unit", cause, mean=-0.05, scaling="unit")
    yield Recipe("bias--3", cause, bias=-6.0)
    yield Recipe("zero", cause, gain=0.0)
    yield Recipe("tiny-deep", cause, gain=0.005, sizes=(64, 32, 32, 32, 32, 10), optimizer="sgd", rate=0.05)
    yield Recipe("huge-deep", cause, gain=200.0, sizes=(64, 32, 32, 32, 32, 10), optimizer="sgd", rate=0.05)
    cause = "vanishing_gradient"
    deep = (64, 32, 32, 32, 32, 32, 32, 10)
    yield Recipe("sigmoid-deep", cause, function="sigmoid", gain=1.0, sizes=deep, optimizer="sgd", rate=0.1)
    yield Recipe(
        "sigmoid-deeper", cause, function="sigmoid", gain=1.0, sizes=(*deep[:-1], 32, 10), optimizer="sgd", rate=0.2
    )
    cause = "exploding_gradient"
    yield Recipe("spike", cause, optimizer="sgd", rate=0.05, spike_at=150)
    yield Recipe("spike-momentum", cause, optimizer="momentum", rate=0.01, spike_at=120)
    yield Recipe("spike-deep", cause, optimizer="sgd", rate=0.05, spike_at=150, sizes=(64, 32, 32, 32, 10))
    cause = "saturating_activation"
    yield Recipe("tanh-large", cause, function="tanh", gain=1e4)
    yield Recipe("sigmoid-large", cause, function="sigmoid", gain=4e4)
    yield Recipe("tanh-bias", cause, function="tanh", gain=1.0, bias=8.0)
    cause = "unscaled_data"
    yield Recipe("tanh-bytes", cause, function="tanh", gain=1.0, scaling="bytes")
    yield Recipe("sigmoid-bytes", cause, function="sigmoid", gain=1.0, scaling="bytes")
    yield Recipe("relu-bytes", cause, optimizer="sgd", rate=0.05, scaling="bytes")
    yield Recipe("tanh-bytes-late", cause, function="tanh", gain=1.0, scaling="unit", scaled_from=100)
    cause = "upstream_dead"
    everyone = tuple(range(32))
    yield Recipe("first-killed", cause, plants=(Plant("kill", 0, everyone, step=80),))
    cause = "weight_decay"
    yield Recipe("decay-sgd", cause, optimizer="sgd", rate=0.05, decay=2.0, steps=300)
    yield Recipe("decay-adam", cause, rate=3e-3, decay=30.0, steps=300)
    cause = "constant_output_head"
    yield Recipe("one-class", cause, sizes=(64, 32, 32, 1), one_class=True)
    yield Recipe("one-class-tanh", cause, sizes=(64, 32, 1), function="tanh", gain=1.0, one_class=True)
    yield Recipe("frozen-first", "frozen_by_user", frozen=(0,))
    yield Recipe("frozen-both", "frozen_by_user", frozen=(0, 1))
    yield Recipe("pruned", "pruned", plants=(Plant("prune", 0, tuple(range(12)), step=60),))
    yield Recipe("pruned-most", "pruned", plants=(Plant("prune", 1, tuple(range(20)), step=60),))
    yield Recipe("nan", "non_finite_data", nan_at=60)
    yield Recipe("nan-first", "non_finite_data", nan_at=0)
    yield Recipe("killed", "unclear", plants=(Plant("kill", 1, tuple(range(20)), step=100),))


def _causes_elsewhere() -> Iterator[Recipe]:
    """In other networks than dense ones, and with a data set of known length."""
    yield Recipe("cnn-adam-0.1", "learning_rate_too_high", architecture="cnn", rate=0.1)
    yield Recipe("cnn-mean--0.5", "poor_initialization", architecture="cnn", mean=-0.5)
    yield Recipe("cnn-bytes", "unscaled_data", architecture="cnn", optimizer="sgd", rate=0.05, scaling="bytes")
    yield Recipe(
        "cnn-second-killed", "upstream_dead", architecture="cnn", plants=(Plant("kill", 1, tuple(range(12)), step=80),)
    )
    yield Recipe("cnn-adam-1e-7", "learning_rate_too_low", architecture="cnn", rate=1e-7)
    yield Recipe("lstm-adam-1e-7", "learning_rate_too_low", architecture="lstm", rate=1e-7)
    yield Recipe("lstm-adam-0.3", "learning_rate_too_high", architecture="lstm", rate=0.3)
    yield Recipe("transformer-adam-1e-7", "learning_rate_too_low", architecture="transformer", rate=1e-7)
    yield Recipe("transformer-bias--8", "poor_initialization", architecture="transformer", bias=-8.0)
    yield Recipe("transformer-frozen", "frozen_by_user", architecture="transformer", frozen=(0,))
    yield Recipe("known-by-heart", "insufficient_data", few=64, rate=5e-3)
    yield Recipe("known-by-heart-cnn", "insufficient_data", few=64, rate=5e-3, architecture="cnn")


def healthy(seeds: int = 2) -> Iterator[Recipe]:
    """Clean twins."""
    for seed in range(seeds):
        for recipe in _healthy():
            yield replace(recipe, name=f"healthy/{recipe.name}-{seed}", seed=seed + 20)


def _healthy() -> Iterator[Recipe]:
    yield Recipe("adam")
    yield Recipe("sgd", optimizer="sgd", rate=0.05)
    yield Recipe("momentum", optimizer="momentum", rate=0.02)
    yield Recipe("unit", scaling="unit")
    for function in FUNCTIONS[1:]:
        yield Recipe(function, function=function, gain=2.0 if "relu" in function else 1.0)
    yield Recipe("deep", sizes=(64, 32, 32, 32, 32, 32, 10))
    yield Recipe("deep-narrower", sizes=(64, 48, 32, 24, 16, 10))
    yield Recipe("small-weights", gain=1 / 3)
    yield Recipe("warm-up", schedule="warm_up", rate=3e-3)
    yield Recipe("slow-warm-up", schedule="warm_up", rate=5e-3, optimizer="sgd")
    yield Recipe("cosine", schedule="cosine", rate=3e-3, steps=400)
    yield Recipe("cosine-tail", schedule="cosine", rate=1e-4, pretrained=400)
    yield Recipe("converged", pretrained=800, rate=1e-4)
    yield Recipe("converged-sgd", pretrained=800, rate=1e-3, optimizer="sgd")
    yield Recipe("fine-tuning", pretrained=300, rate=1e-5)
    yield Recipe("fine-tuning-sgd", pretrained=300, rate=1e-5, optimizer="sgd")
    yield Recipe("fine-tuning-tanh", pretrained=300, rate=1e-5, function="tanh", gain=1.0)
    yield Recipe("decay", decay=0.01)
    yield Recipe("small-batch", batch=8, steps=400)
    yield Recipe("short", steps=30)
    for kind in ("cnn", "lstm", "transformer"):
        yield Recipe(f"{kind}", architecture=kind)
        yield Recipe(f"{kind}-gelu", architecture=kind, function="gelu", gain=1.0)
        yield Recipe(f"{kind}-warm-up", architecture=kind, schedule="warm_up", rate=3e-3)
        yield Recipe(f"{kind}-fine-tuning", architecture=kind, pretrained=300, rate=1e-5)

"""Every private name of JAX that the taps lean on, so that a new version of JAX is one file's work.

Checked with JAX 0.10. What works differently in another version raises an error that says so, before training starts.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from deadunits_tb.errors import MissingDependencyError


def trace_of_now() -> Any:
    """What identifies the computation that is being traced at present, None if nothing is."""
    return getattr(jnp.zeros(()), "_trace", None)


def carried(value: Any, trace: Any) -> Any:
    """A value as it can be carried out of a computation.

    While a function is differentiated its values stand for pairs of a primal and a tangent; the primal is a value of
    the computation around it. Values of a loop's body, of a function compiled within, or of one example under ``vmap``
    are not, and None is given for them.

    Args:
        value: Anything.
        trace: What :func:`trace_of_now` gave in that computation.
    """
    while isinstance(value, jax.core.Tracer):
        if value._trace is trace:
            return value
        value = getattr(value, "primal", None)
    return value if isinstance(value, jax.Array) else None


def function_name(eqn: Any) -> str:
    """The name of the function that an operation calls, empty if it has none."""
    inner = eqn.params.get("call_jaxpr")
    if "name" in eqn.params or inner is None:
        return str(eqn.params.get("name", ""))
    inner = getattr(inner, "jaxpr", inner)
    if len(inner.eqns) == 1 and "name" in inner.eqns[0].params:
        return str(inner.eqns[0].params["name"])
    return str(getattr(getattr(inner, "debug_info", None), "func_name", ""))


def evaluated(eqn: Any, inputs: list[Any]) -> list[Any]:
    """What an operation of a traced function gives for some inputs.

    Args:
        eqn: The operation.
        inputs: Its operands, which may be traced themselves.
    """
    found = eqn.primitive.get_bind_params(eqn.params)
    functions, params = found if isinstance(found, tuple) else ((), found)  # functions are apart in older versions
    with eqn.ctx.manager:
        result = eqn.primitive.bind(*functions, *inputs, **params)
    return list(result) if eqn.primitive.multiple_results else [result]


def check_version() -> None:
    """Find out whether this version of JAX gives out what the taps need, by trying.

    Raises:
        MissingDependencyError: It does not.
    """
    found: list[Any] = []

    def step(x: Any) -> Any:
        trace = trace_of_now()

        @jax.custom_vjp  # type: ignore[untyped-decorator]  # of a package whose types are not read
        def tap(value: Any) -> Any:
            return value

        def back(_: None, gradient: Any) -> tuple[Any]:
            found.append(carried(gradient, trace))
            return (gradient,)

        def loss(x: Any) -> Any:
            value = tap(2 * x)
            found.append(carried(value, trace))
            return jnp.sum(value)

        tap.defvjp(lambda value: (value, None), back)
        return jax.grad(loss)(x)

    try:
        jax.make_jaxpr(step)(1.0)
    except Exception as error:
        found.append(error)
    if len(found) != 2 or not all(isinstance(value, jax.core.Tracer) for value in found):
        raise MissingDependencyError(
            f"deadunits_tb cannot watch Keras on JAX {jax.__version__}, whose transformations work in another way: "
            "use JAX 0.10"
        )

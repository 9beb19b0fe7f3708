"""A guard for a tool that is not ours: a callable that comes with a JSON schema.

What a decorator reads from a signature is made from the schema here:

* each property is a parameter, passed by name. The default that the schema states is shown and
  passed like any value; where it states none, ``None`` stands for "not given", and is not passed;
* ``string``, ``integer``, ``number``, ``boolean``, ``array``, ``object`` and ``null`` are checked
  as the types that they are, ``enum`` and ``const`` as a ``Literal``; whatever else a schema says
  is the tool's own business, and the value is any plain data;
* a parameter named in *untrusted* tolerates untrusted content, any other one is plain;
* what the tool returns is untrusted content, unless *result* says otherwise: nobody here knows
  what it puts into it.

A name that Python does not take as a parameter, ``file-path`` or ``from``, is ``file_path`` or
``from_`` to grants, approvers and the log, and itself to the tool. What calls the guarded
function has to know that (*renamed*); where a framework spreads the model's arguments, a tool
with such a name is refused.
"""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Final, Literal, Union

from checkrein.errors import CheckreinError, ConfigurationError, MisuseError
from checkrein.facts import injected as INJECTED  # noqa: N812 (a word for annotations)
from checkrein.frames import spec_of
from checkrein.mediation import control_flow
from checkrein.untrusted import Untrusted

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
"""What ``reads(...)``, ``writes(...)`` or ``irreversible(...)`` returns."""

_TYPES: Final[dict[str, Any]] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}


def adopted(
    call: Callable[[dict[str, Any]], Any],
    guard: Decorator,
    *,
    name: str,
    description: str,
    schema: Mapping[str, Any],
    untrusted: Collection[str] = (),
    injected: Collection[str] = (),
    result: Any = Untrusted[Any],
    renamed: bool = False,
) -> Callable[..., Any]:
    """Return a guarded function that takes a tool's arguments by name.

    Args:
        call: makes the call, given arguments by name; a coroutine function makes the
            guarded one a coroutine function.
        guard: ``irreversible("mail.send", external=True)`` for example.
        name: the tool's name, in the log and for approvers.
        description: what it says about itself; part of its definition.
        schema: the JSON schema of its arguments, an object.
        untrusted: the parameters that take untrusted content.
        injected: further parameters, which the framework gives; they are passed on by identity.
        result: the type of the result, for the guard: ``Untrusted[Any]``, or ``str`` for
            example where what comes back is the tool's own words.
        renamed: whether the caller spells the names as :func:`spelt` does.

    Raises:
        ConfigurationError: the schema is not that of named arguments, names none of *untrusted*,
            or has a name that Python does not take.
        MisuseError: *guard* is no decorator of ours, or refuses the tool.

    Example:
        >>> from checkrein import Grant, Run, allow, writes
        >>> schema = {"properties": {"path": {"type": "string"}}, "required": ["path"]}
        >>> save = adopted(
        ...     lambda given: f"saved {given['path']}", writes("files.notes"),
        ...     name="save", description="", schema=schema, result=str,
        ... )
        >>> with Run(agent="clerk", grant=Grant(allow("files.notes"))):
        ...     save(path="a.txt")
        'saved a.txt'
    """
    parameters, names = _parameters(schema, untrusted, injected)
    odd = sorted(one for own, one in names.items() if own != one)
    if odd and not renamed:
        raise ConfigurationError(
            f"{name}: Python takes no argument called {odd[0]!r}; "
            "call the tool in a guarded function of your own"
        )

    def given_to(arguments: dict[str, Any]) -> dict[str, Any]:
        bare = {
            name: one.reveal() if isinstance(one, Untrusted) else one
            for name, one in arguments.items()
        }
        return {names[one]: bare[one] for one in bare if bare[one] is not None or one not in absent}

    absent = {one.name for one in parameters if one.default is None}
    body: Callable[..., Any]
    if inspect.iscoroutinefunction(call):

        async def coroutine(**arguments: Any) -> Any:
            return await call(given_to(arguments))

        body = coroutine
    else:

        def plain(**arguments: Any) -> Any:
            return call(given_to(arguments))

        body = plain
    body.__name__ = body.__qualname__ = name
    body.__doc__ = description
    body.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": result}
    vars(body)["__signature__"] = inspect.Signature(parameters, return_annotation=result)
    guarded = guard(body)
    if spec_of(guarded) is None:
        raise MisuseError("adopt(tool, ...) takes reads(...), writes(...) or irreversible(...)")
    return guarded


def fenced(call: Callable[[dict[str, Any]], Any], name: str) -> Callable[[dict[str, Any]], Any]:
    """Return *call* with the words of its errors as content: a framework tells them to its model.

    The error is of a class with the same name, and has no other attributes. What a framework
    raises to pause or to end a run, and what we raise, goes through, in whatever it is wrapped.
    """

    def told(error: Exception) -> Exception:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, _passing()):
                return error
            cause = cause.__cause__
        said = str(Untrusted(f"{type(error).__name__}: {error}", source=f"error of {name}"))
        made: Exception = type(type(error).__name__, (Exception,), {})(said)
        return made

    if inspect.iscoroutinefunction(call):

        async def acalled(arguments: dict[str, Any]) -> Any:
            try:
                return await call(arguments)
            except Exception as error:  # noqa: BLE001 (whatever it is, its words are not ours)
                raise told(error) from error.__cause__

        return acalled

    def called(arguments: dict[str, Any]) -> Any:
        try:
            return call(arguments)
        except Exception as error:  # noqa: BLE001 (as above)
            raise told(error) from error.__cause__

    return called


def fits(function: Callable[..., Any], arguments: Mapping[str, Any]) -> bool:
    """Say whether a call with these names can be made at all: a model may leave some out."""
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError:
        return False
    return True


def _passing() -> tuple[type[BaseException], ...]:
    return (CheckreinError, *control_flow())


def _parameters(
    schema: Mapping[str, Any], untrusted: Collection[str], injected: Collection[str]
) -> tuple[list[inspect.Parameter], dict[str, str]]:
    """Return parameters, and the tool's own name for each."""
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping) or schema.get("type", "object") != "object":
        raise ConfigurationError("a tool's schema is that of an object with properties")
    unknown = sorted(set(untrusted) - set(properties))
    if unknown:
        raise ConfigurationError(f"untrusted= names {unknown[0]!r}, which is no argument")
    required = schema.get("required", ())
    if not isinstance(required, list | tuple):
        raise ConfigurationError("a tool's schema names its required arguments in an array")
    parameters: list[inspect.Parameter] = []
    names: dict[str, str] = {}
    for name, one in properties.items():
        hint: Any = _hint(one)
        default: Any = inspect.Parameter.empty
        if name not in required:
            default = one.get("default") if isinstance(one, Mapping) else None
            hint = Union[hint, None] if default is None else hint  # noqa: UP007 (built at run time)
        hint = Untrusted[hint] if name in untrusted else hint
        parameters.append(_parameter(name, hint, default, names))
    parameters += (
        _parameter(name, Annotated[Any, INJECTED], inspect.Parameter.empty, names)
        for name in injected
    )
    return parameters, names


def _parameter(name: str, hint: Any, default: Any, names: dict[str, str]) -> inspect.Parameter:
    own = spelt(name)
    if own in names:
        raise ConfigurationError(f"two arguments of the tool would be called {own!r}")
    names[own] = name
    return inspect.Parameter(own, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def spelt(name: str) -> str:
    """Return how Python spells the name of a tool's argument."""
    made = "".join(one if f"_{one}".isidentifier() else "_" for one in name)
    made = made if made.isidentifier() else f"_{made}"
    return f"{made}_" if keyword.iskeyword(made) else made


def _hint(schema: Any) -> Any:
    """Return the type that a property is checked as."""
    if not isinstance(schema, Mapping):
        return Any
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list) and values and all(type(one) in {str, int, bool} for one in values):
        return Literal[tuple(values)]
    either = schema.get("anyOf")
    if isinstance(either, list) and either:
        return Union[tuple(_hint(one) for one in either)]  # noqa: UP007 (built at run time)
    kind = schema.get("type")
    kinds = [_TYPES.get(str(one)) for one in (kind if isinstance(kind, list) else [kind])]
    return Union[tuple(kinds)] if kinds and None not in kinds else Any  # noqa: UP007

"""The tests of the service that can be asked of whatever answers in its place."""

import inspect
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

__all__ = ["borrowed"]


def borrowed(
    modules: Iterable[ModuleType], *, asking: set[str], not_asking: set[str], but: Mapping[str, str]
) -> dict[str, Any]:
    """The tests of some modules, by their names, and the fixtures of these modules.

    Args:
        modules: Where they are.
        asking: Fixtures of which a test must need one, be it by way of others.
        not_asking: Fixtures of which it may need none.
        but: Tests to leave out, each with the reason.

    Raises:
        ValueError: If two fixtures have one name, or a test to be left out is not there.
    """
    fixtures: dict[str, Any] = {}
    tests: dict[str, Any] = {}
    left_out = set()
    for module in modules:
        own = {name: value for name, value in vars(module).items() if _is_fixture(value)}
        needs = {name: _parameters(fixture.__wrapped__) for name, fixture in own.items()}
        if twice := fixtures.keys() & own:
            raise ValueError(f"several modules have fixtures of the names {twice}")
        fixtures |= own
        for name, value in vars(module).items():
            if not (name.startswith("test_") and inspect.isfunction(value)):
                continue
            wanted = _parameters(value)
            while more := {m for need in wanted for m in needs.get(need, set())} - wanted:
                wanted |= more
            if not wanted & asking or wanted & not_asking:
                continue
            if name in but:
                left_out.add(name)
            else:
                stem = module.__name__.rpartition(".")[2]
                tests[f"{name}_of_{stem}" if name in tests else name] = value
    if missing := set(but) - left_out:
        raise ValueError(f"there is no {missing} to leave out")
    return fixtures | tests


def _is_fixture(value: object) -> bool:
    return type(value).__name__ == "FixtureFunctionDefinition"


def _parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)

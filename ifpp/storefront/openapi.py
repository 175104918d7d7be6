"""The store's interface as OpenAPI 3.1, generated from the routes and the message types."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from ifpp import __version__
from ifpp.model.messages import Problem
from ifpp.storefront.routes import PARAMETERS, ROUTES, Route

_REF = "#/components/schemas/{name}"
_PROBLEM = "Refused: a fault code, what happened, what to do"
_ABOUT = """The factory profile store hands packages out, each to the one chip it is bound to.

A caller shows a client certificate of the site's CA; its URI `ifpp:<role>:<name>` says who calls. `x-roles` names who
may call an operation. A station speaks for itself only. Every call may be repeated."""


def describe() -> dict[str, Any]:
    """Return the document."""
    types = {kind for route in ROUTES for kind in (route.takes, route.gives) if isinstance(kind, type)}
    _, schemas = msgspec.json.schema_components({*types, Problem}, ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "ifpp factory profile store", "version": __version__, "description": _ABOUT},
        "security": [{"certificate": []}],
        "paths": paths,
        "components": {
            "schemas": {name: schemas[name] for name in sorted(schemas)},
            "securitySchemes": {"certificate": {"type": "mutualTLS"}},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.operation,
        "summary": route.summary,
        "x-roles": sorted(route.roles),
        "responses": {
            str(route.status): _success(route),
            **{name: _content(_PROBLEM, "application/json", _reference(Problem)) for name in ("4XX", "5XX")},
        },
    }
    if route.parameters:
        operation["parameters"] = [_parameter(name) for name in route.parameters]
    if route.takes is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _reference(route.takes)}},
        }
    return operation


def _success(route: Route) -> dict[str, Any]:
    if route.gives is None:
        return {"description": "Done, or done before"}
    if isinstance(route.gives, type):
        about = inspect.cleandoc(route.gives.__doc__ or route.summary).splitlines()[0]
        return _content(about, "application/json", _reference(route.gives))
    if route.gives == "json":
        return _content(route.summary, "application/json", {"type": "object"})
    return _content(route.summary, "application/octet-stream", {})


def _content(about: str, media: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": about, "content": {media: {"schema": schema}}}


def _parameter(name: str) -> dict[str, Any]:
    schema = {"type": "string", "pattern": f"^{PARAMETERS[name]}$"}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _reference(kind: type) -> dict[str, Any]:
    return {"$ref": _REF.format(name=kind.__name__)}

"""Which values a key allows, in words: its JSON schema read aloud."""

from collections.abc import Mapping
from typing import Any


def describe_values(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Describe in words which values a JSON schema allows."""
    if "$ref" in schema:
        return describe_values(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if members := schema.get("anyOf") or schema.get("oneOf"):
        kinds = dict.fromkeys(describe_values(each, definitions) for each in members)
        return ", or ".join(kinds)
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{each}`" for each in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type", "string")
    words = {
        "array": _list,
        "object": _mapping,
        "integer": _range,
        "number": _range,
        "string": _text,
        "boolean": lambda *_: "`true`, `false`",
        "null": lambda *_: "`null`",
    }
    return words[kind](schema, definitions)


def _text(schema: Mapping[str, Any], _: Mapping[str, Any]) -> str:
    text = "path" if schema.get("format") == "path" else "text"
    return f"{text} that matches `{schema['pattern']}`" if "pattern" in schema else text


def _list(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if "prefixItems" in schema:
        items = [describe_values(each, definitions) for each in schema["prefixItems"]]
        return f"list of {len(items)}: {', '.join(dict.fromkeys(items))}"
    least = " of at least one" if schema.get("minItems") == 1 else ""
    return f"list{least}: {describe_values(schema['items'], definitions)}"


def _mapping(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if "properties" in schema:
        return "section"
    return f"mapping of text to {describe_values(schema['additionalProperties'], definitions)}"


def _range(schema: Mapping[str, Any], _: Mapping[str, Any]) -> str:
    noun = "whole number" if schema["type"] == "integer" else "number"
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    step = f", a multiple of {schema['multipleOf']}" if "multipleOf" in schema else ""
    if low is not None and high is not None:
        return f"{noun} {_number(low)} to {_number(high)}{step}"
    least = [f"{_number(low)} or more"] if low is not None else []
    least += [f"above {_number(above)}"] if above is not None else []
    most = [f"at most {_number(high)}"] if high is not None else []
    most += [f"below {_number(below)}"] if below is not None else []
    limits = ", ".join([*least, *most]) + step
    return f"{noun} {limits}" if limits else noun


def _number(value: float) -> str:
    return f"{value:g}" if value < 10**6 else str(int(value))

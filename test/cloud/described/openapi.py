"""Requests and answers compared with a description in the form of OpenAPI 3.0, as Neon publishes its API.

What must fit is what swagger.py says of older descriptions, with more rigour: answers, too, may say nothing that is not described, and
what the local cloud accepted must be as described, whoever sent it.  Needs PyYAML.
"""

import json
import re
import urllib.parse

import jsonschema
import yaml

from swagger import FORMATS

METHODS = ("get", "put", "post", "delete", "patch", "head", "options")


def plain(value):
    """A schema as JSON Schema has it: "nullable" becomes one more type, names of statuses text."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    if not isinstance(value, dict):
        return value
    value = {str(name): plain(one) for name, one in value.items()}
    if value.pop("nullable", None) is True and isinstance(value.get("type"), str):
        value["type"] = [value["type"], "null"]
    return value


class Operation:
    def __init__(self, description, template, method, spec, shared):
        self.id = spec["operationId"]
        self.method = method.upper()
        self.description = description
        self.parameters = [description.follow(one) for one in [*shared, *spec.get("parameters", [])]]
        self.body = description.follow(spec.get("requestBody", {}))
        self.responses = {status: description.follow(one) for status, one in spec["responses"].items()}
        self.names = re.findall(r"{([^}]+)}", template)
        self.pattern = re.compile(re.sub(r"\\{[^}]+\\}", "([^/]+)", re.escape(template)) + "$")

    def findings(self, match, request):
        """What of the request is not as described, as texts."""
        query = urllib.parse.parse_qsl(request["target"].partition("?")[2], keep_blank_values=True)
        values = {"path": {name: urllib.parse.unquote(one) for name, one in zip(self.names, match.groups())}, "query": dict(query)}
        found = []
        for spec in self.parameters:
            place, name = spec["in"], spec["name"]
            if name in values.get(place, {}):
                found += [f"{place} {name}: {text}" for text in self.misfits(spec["schema"], read(spec["schema"], values[place][name]), "")]
            elif spec.get("required") and place in values:
                found.append(f"{place} {name} is required")
        known = {spec["name"] for spec in self.parameters if spec["in"] == "query"}
        found += [f"query {name} is not known" for name in values["query"] if name not in known]
        return found + self.body_findings(request)

    def body_findings(self, request):
        text = request.get("body", "")
        if not self.body:
            return ["a body is not known"] if text else []
        if not text:
            return ["the body is required"] if self.body.get("required") else []
        kind = request["headers"].get("content-type", "").partition(";")[0]
        if kind not in self.body["content"]:
            return [f"the body's Content-Type is {kind or 'not said'}"]
        return self.content_findings(self.body["content"][kind]["schema"], text, "body")

    def answer_findings(self, answer):
        status, text = answer["status"], answer.get("body", "")
        spec = self.responses.get(str(status)) or (self.responses.get("default") if status >= 400 else None)
        if spec is None:
            return [f"answer: status {status} is not described"]
        content = spec.get("content")
        if not content:
            return [f"answer {status}: a body is not described"] if text else []
        kind = {name.lower(): value for name, value in answer["headers"].items()}.get("content-type", "").partition(";")[0]
        if kind not in content:
            return [f"answer {status}: Content-Type is {kind or 'not said'}"]
        return self.content_findings(content[kind]["schema"], text, f"answer {status}")

    def content_findings(self, schema, text, what):
        try:
            value = json.loads(text)
        except ValueError as error:
            return [f"{what} is not JSON: {error}"]
        return self.misfits(schema, value, what) + [f"{what} {place.lstrip('.')} is not known" for place in self.unknown(schema, value, "")]

    def misfits(self, schema, value, what):
        schema = {"allOf": [schema], "components": self.description.components}     # which references begin with
        validator = jsonschema.Draft4Validator(schema, format_checker=FORMATS)
        return [": ".join(filter(None, (f"{what} {'.'.join(map(str, error.absolute_path))}".strip(), error.message[:200])))
                for error in validator.iter_errors(value)]

    def unknown(self, schema, value, place):
        """Properties that no part of the schema lists, or that have a name only."""
        schema = self.description.follow(schema)
        if isinstance(value, list):
            for index, one in enumerate(value):
                yield from self.unknown(schema.get("items", {}), one, f"{place}[{index}]")
        elif isinstance(value, dict):
            properties, others = self.properties(schema)
            if not properties and others is None:       # of which nothing is said
                return
            for name, one in value.items():
                if name in properties:
                    yield from self.unknown(properties[name], one, f"{place}.{name}")
                elif others is None:
                    yield f"{place}.{name}"
                else:
                    yield from self.unknown(others, one, f"{place}.{name}")

    def properties(self, schema):
        """Those that an object of this schema has, and the schema of others that it may have; None: nothing is said of others."""
        schema = self.description.follow(schema)
        found, others = dict(schema.get("properties", {})), schema.get("additionalProperties") or None
        for part in schema.get("allOf", []):
            more, of_part = self.properties(part)
            found.update(more)
            others = others or of_part
        return found, {} if others is True else others


def read(schema, text):
    """The value of a parameter, which comes as text."""
    kind = schema.get("type")
    try:
        if kind in ("integer", "number"):
            return {"integer": int, "number": float}[kind](text)
    except ValueError:
        return text
    if kind == "boolean":
        return {"true": True, "false": False}.get(text.lower(), text)       # clients in Python write True
    return text


class Description:
    """One file that stands alone; the paths of its servers are a part of its own."""

    def __init__(self, file):
        with open(file, encoding="utf-8") as stream:
            spec = plain(yaml.load(stream, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
        self.components = spec["components"]
        self.spec = spec
        base = urllib.parse.urlsplit(spec["servers"][0]["url"]).path.rstrip("/")
        self.operations = [Operation(self, base + template, method, item[method], item.get("parameters", []))
                           for template, item in spec["paths"].items() for method in METHODS if method in item]

    def follow(self, value):
        while "$ref" in value:
            found = self.spec
            for part in value["$ref"].removeprefix("#/").split("/"):
                found = found[part.replace("~1", "/").replace("~0", "~")]
            value = found
        return value

    def judge(self, request, path):
        """(id of the operation, findings, findings of the answer), or None when there is none."""
        matches = [(len(one.names), index, one, one.pattern.match(path)) for index, one in enumerate(self.operations)
                   if one.method == request["method"] and one.pattern.match(path)]
        if not matches:
            return None
        _, _, operation, match = min(matches, key=lambda one: one[:2])
        found = operation.findings(match, request)
        if "answer" not in request:
            return operation.id, found, []
        answer = request["answer"]
        accepted = [f"accepted: {text}" for text in found] if answer["status"] < 400 else []
        return operation.id, found, [*accepted, *operation.answer_findings(answer)]

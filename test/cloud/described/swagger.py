"""Requests compared with descriptions in the form of OpenAPI 2.0 (Swagger), as Microsoft publishes them.

What must fit: method and path; each parameter of path, query and header with its type, pattern, bounds and values; required ones are
there; nothing is sent that the description does not know (headers: of those that begin with x-ms-); the body's types, required
properties and values, and again nothing unknown where the description lists all properties.
"""

import datetime
import json
import re
import urllib.parse
import xml.etree.ElementTree as xml

import jsonschema
import referencing
import referencing.jsonschema

BASE = "file:///"               # what names of files are relative to
FORMATS = jsonschema.FormatChecker(formats=["uuid"])


@FORMATS.checks("date-time", raises=ValueError)
def is_time(value):
    if isinstance(value, str):
        if not re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", value):
            raise ValueError(value)
        datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))
    return True


class Documents:
    """Files of descriptions, which refer to each other."""

    def __init__(self, root):
        self.root = root
        self.files = {}
        self.registry = referencing.Registry(retrieve=lambda uri: referencing.Resource(
            contents=self.load(uri.removeprefix(BASE)), specification=referencing.jsonschema.DRAFT4))

    def load(self, name):
        if name not in self.files:
            with open(self.root / name, encoding="utf-8-sig") as stream:
                self.files[name] = meant(json.load(stream))
        return self.files[name]

    def follow(self, value, name):
        """What a value of file `name` stands for, through references, and the file that is in."""
        while isinstance(value, dict) and "$ref" in value:
            path, _, pointer = value["$ref"].partition("#")
            if path:
                name = urllib.parse.urljoin(BASE + name, path).removeprefix(BASE)
            value = self.load(name)
            for part in pointer.strip("/").split("/") if pointer.strip("/") else []:
                value = value[urllib.parse.unquote(part).replace("~1", "/").replace("~0", "~")]
        return value, name


class Operation:
    def __init__(self, documents, name, template, method, spec, shared):
        self.id = spec["operationId"]
        self.method = method.upper()
        self.documents = documents
        self.parameters = []
        self.responses = {status: documents.follow(one, name) for status, one in spec.get("responses", {}).items()}
        self.consumes = spec.get("consumes") or documents.load(name).get("consumes") or ["application/json"]
        if "x-ms-pageable" in spec:     # the next page is asked for with the link that the service gave
            self.parameters.append(({"name": "$skiptoken", "in": "query", "type": "string"}, name))
        self.parameters += [documents.follow(one, name) for one in [*shared, *spec.get("parameters", [])]]
        path, _, query = template.partition("?")
        # "comp=list" must be sent; a word alone only tells two operations of one path apart
        self.fixed = dict(part.split("=") for part in query.split("&") if "=" in part)
        self.names = re.findall(r"{([^}]+)}", path)
        greedy = self.names[-1:] if "x-ms-paths" in documents.load(name) else []
        pieces = re.split(r"{([^}]+)}", path)           # text and names in turn
        pieces[::2] = map(re.escape, pieces[::2])
        pieces[1::2] = ["(.+)" if one in greedy else "([^/]+)" for one in pieces[1::2]]
        self.pattern = re.compile("".join(pieces) + "$", re.IGNORECASE)

    def matches(self, method, path, query):
        return self.method == method and all(query.get(name) == value for name, value in self.fixed.items()) \
            and self.pattern.match(path)

    def findings(self, match, request, query):
        """What is not as described, as texts."""
        found = []
        values = {"path": dict(zip(self.names, (urllib.parse.unquote(one or "") for one in match.groups()))),
                  "query": {name: value for name, value in query.items() if name not in self.fixed},
                  "header": {name.lower(): value for name, value in request["headers"].items()}}
        known = {"path": set(), "query": set(), "header": {"x-ms-date", "x-ms-client-request-id"}}
        body = None
        for spec, name in self.parameters:
            place = spec["in"]
            if place == "body":
                body = spec, name
            elif place in values:
                key = spec["name"].lower() if place == "header" else spec["name"]
                known[place].add(key)
                if key in values[place]:
                    found += [f"{place} {key}: {text}" for text in unfit(spec, values[place][key])]
                elif spec.get("required") and key not in self.fixed and place != "path":
                    found.append(f"{place} {key} is required")
                if key.startswith("x-ms-meta"):
                    known["header"].update(other for other in values["header"] if other.startswith("x-ms-meta-"))
        found += [f"query {key} is not known" for key in values["query"] if key not in known["query"]]
        found += [f"header {key} is not known" for key in values["header"]
                  if key.startswith("x-ms-") and key not in known["header"]]
        return found + self.body_findings(request, body)

    def body_findings(self, request, body):
        text = request.get("body", "")
        if body is None:
            return ["a body is not known"] if text else []
        spec, name = body
        if not text:
            return ["the body is required"] if spec.get("required") else []
        if spec["schema"].get("format") == "file":
            return []
        kind = request["headers"].get("content-type", "").partition(";")[0]
        if kind not in self.consumes:
            return [f"the body's Content-Type is {kind or 'not said'}, not one of {self.consumes}"]
        if "xml" in kind:
            return xml_findings(self.documents.follow(spec["schema"], name)[0], text)
        try:
            value = json.loads(text)
        except ValueError as error:
            return [f"the body is not JSON: {error}"]
        return self.misfits(spec["schema"], name, value, "body") + \
            [f"body {place} is not known" for place in self.unknown(spec["schema"], name, value, "")]

    def misfits(self, schema, name, value, what):
        validator = jsonschema.Draft4Validator(self.absolute(schema, name), registry=self.documents.registry, format_checker=FORMATS)
        return [f"{what} {'.'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in validator.iter_errors(value)]

    def answer_findings(self, answer):
        """What is not as described in an answer of the local cloud, as texts.  More than is described is allowed."""
        spec, name = self.responses.get(str(answer["status"])) or self.responses.get("default") or (None, None)
        if spec is None:
            return [f"answer: status {answer['status']} is not described"]
        text = answer.get("body", "")
        if "schema" not in spec or "json" not in " ".join(answer["headers"].values()) or not text:
            return []
        if self.documents.follow(spec["schema"], name)[0].get("type") == "file":
            return []
        if self.id == "FileSystem_ListPaths" and answer["status"] == 200:      # numbers and booleans are text there
            return []
        return self.misfits(spec["schema"], name, said(json.loads(text)), f"answer {answer['status']}")

    def absolute(self, schema, name):
        """The schema with references that say their file."""
        if isinstance(schema, list):
            return [self.absolute(one, name) for one in schema]
        if not isinstance(schema, dict):
            return schema
        schema = {key: self.absolute(value, name) for key, value in schema.items()}
        if isinstance(schema.get("$ref"), str):
            path, _, pointer = schema["$ref"].partition("#")
            schema["$ref"] = urllib.parse.urljoin(BASE + name, path) + "#" + pointer
        return schema

    def unknown(self, schema, name, value, place):
        """Properties that no part of the schema lists."""
        schema, name = self.documents.follow(schema, name)
        if isinstance(value, list):
            for number, one in enumerate(value):
                yield from self.unknown(schema.get("items", {}), name, one, f"{place}[{number}]")
            return
        properties, is_open = self.properties(schema, name)
        if not isinstance(value, dict) or (is_open and not properties):
            return
        for key, one in value.items():
            if key in properties:
                yield from self.unknown(*properties[key], one, f"{place}.{key}")
            elif not is_open:
                yield f"{place}.{key}"

    def properties(self, schema, name):
        """name -> (schema, file) of all that an object of this schema has; and whether it may have others."""
        schema, name = self.documents.follow(schema, name)
        found = {key: (value, name) for key, value in schema.get("properties", {}).items()}
        is_open = bool(schema.get("additionalProperties")) or "discriminator" in schema or \
            (not schema.get("properties") and "allOf" not in schema)
        for part in schema.get("allOf", []):
            more, is_part_open = self.properties(part, name)
            found.update(more)
            is_open = is_open or is_part_open
        return found, is_open


def meant(value):
    """An object without properties is how such descriptions say "anything", as their examples show."""
    if isinstance(value, list):
        return [meant(one) for one in value]
    if not isinstance(value, dict):
        return value
    if value.get("type") == "object" and not set(value) & {"properties", "additionalProperties", "allOf"}:
        value = {key: one for key, one in value.items() if key != "type"}
    return {key: meant(one) for key, one in value.items()}


def said(value):
    """Without what is null: services write that for what is not known yet."""
    if isinstance(value, list):
        return [said(one) for one in value]
    return {key: said(one) for key, one in value.items() if one is not None} if isinstance(value, dict) else value


def xml_findings(schema, text):
    """The element's name and those of its children."""
    try:
        root = xml.fromstring(text)
    except xml.ParseError as error:
        return [f"the body is not XML: {error}"]
    found = [] if root.tag == schema.get("xml", {}).get("name", root.tag) else [f"the body is {root.tag}"]
    return found + [f"the body's {one.tag} is not known" for one in root if one.tag not in schema.get("properties", {one.tag: 0})]


def mend(operation):
    """Where a description is not what the service takes and its own clients send."""
    if operation.id in ("Blob_StartCopyFromURL", "Blob_CopyFromURL"):
        operation.fixed.pop("comp")             # comp=copy is not sent
        operation.parameters = [(spec, name) for spec, name in operation.parameters if spec["name"] != "comp"]
    elif operation.id == "GetSecret":           # no version is the newest one
        operation.pattern = re.compile(operation.pattern.pattern.replace("/([^/]+)$", "(?:/([^/]*))?$"))
    # the pattern of names has neither a hyphen nor a blank
    operation.parameters = [({key: value for key, value in spec.items() if key != "pattern"} if spec["name"] == "blob" else spec, name)
                            for spec, name in operation.parameters]


def unfit(spec, text):
    """What is wrong with the text of a parameter that is no body."""
    kind = spec.get("type", "string")
    if kind == "array":
        return [problem for one in text.split(",") for problem in unfit(spec.get("items", {}), one)]
    try:
        value = {"integer": int, "number": float}.get(kind, str)(text)
    except ValueError:
        return [f"{text[:60]!r} is not {kind}"]
    if kind == "boolean" and text.lower() not in ("true", "false"):
        return [f"{text[:60]!r} is not boolean"]
    schema = {key: spec[key] for key in ("minimum", "maximum", "minLength", "maxLength", "pattern", "format") if key in spec}
    # A description is of one version of a service that has several
    if "enum" in spec and kind != "boolean" and spec.get("name", "").lower() != "x-ms-version":
        schema["enum"] = spec["enum"]
    if schema.get("format") not in ("uuid", "date-time"):
        schema.pop("format", None)
    return [error.message[:200] for error in jsonschema.Draft4Validator(schema, format_checker=FORMATS).iter_errors(value)]


class Description:
    """One file of operations, below a prefix of the local cloud's paths."""

    def __init__(self, documents, name):
        spec = documents.load(name)
        self.base = spec.get("basePath", "").rstrip("/")
        self.operations = [Operation(documents, name, self.base + template, method, one, item.get("parameters", []))
                           for paths in ("paths", "x-ms-paths") for template, item in spec.get(paths, {}).items()
                           for method, one in item.items() if isinstance(one, dict) and "operationId" in one]
        for one in self.operations:
            mend(one)

    def judge(self, request, path):
        """(id of the operation that fits best, findings, findings of the answer), or None when there is none."""
        _, _, text = request["target"].partition("?")
        query = dict(urllib.parse.parse_qsl(text, keep_blank_values=True))
        best = None
        for one in self.operations:
            match = one.matches(request["method"], path, query)
            if match:
                found = one.findings(match, request, query)
                if best is None or (len(found), -len(one.fixed), len(one.names)) < best[0]:
                    best = (len(found), -len(one.fixed), len(one.names)), one, found
        return best and (best[1].id, best[2], best[1].answer_findings(request["answer"]) if "answer" in request else [])

"""What Neon's API takes: bodies and parameters, as its published description has them.  Whatever does not fit is refused.

A rule is a dict of properties (those whose name begins with "!" are required), a list with the rule of its elements, or a function that
returns the value and raises ValueError.
"""

import datetime
import json
import re
import time
import uuid

from server import Refusal, json_response

ID = re.compile(r"[a-z0-9-]{1,60}$")
LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})$")
TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$")
# how Go, which Neon's control plane is written in, reads a boolean
BOOLEANS = {**dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True), **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False)}


def refusal(status, message, code="", headers=None):
    return Refusal(json_response(status, {"request_id": str(uuid.uuid4()), "code": code, "message": message}, headers))


# -- values ------------------------------------------------------------------------

def text(least=0, most=None):
    def read(value):
        if not isinstance(value, str) or len(value) < least or (most is not None and len(value) > most):
            raise ValueError("must be text" + (f" of {least} to {most} characters" if most else ""))
        return value
    return read


def one_of(*values):
    def read(value):
        if value not in values:
            raise ValueError(f"must be one of {', '.join(values)}")
        return value
    return read


def number(least=None, most=None, whole=True):
    def read(value):
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) \
                or (least is not None and value < least) or (most is not None and value > most):
            raise ValueError(f"must be a {'whole ' if whole else ''}number" + (f" from {least}" if least is not None else "")
                             + (f" to {most}" if most is not None else ""))
        return value
    return read


def boolean(value):
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def identifier(value):
    if not isinstance(value, str) or not ID.match(value):
        raise ValueError(f"must match {ID.pattern}")
    return value


def lsn(value):
    match = LSN.match(value) if isinstance(value, str) else None
    if not match:
        raise ValueError("is not an LSN")
    return (int(match[1], 16) << 32) + int(match[2], 16)


def moment(value):
    if not isinstance(value, str) or not TIME.match(value):
        raise ValueError("is not a time as RFC 3339 has it")
    return datetime.datetime.fromisoformat(value.upper().replace("Z", "+00:00")).timestamp()


def expiry(value):
    found = moment(value)
    if found <= time.time():
        raise ValueError("must be in the future")
    return found


def nullable(rule):
    return lambda value: None if value is None else rule(value)


def map_of_texts(value):
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise ValueError("must be an object of texts")
    return value


# -- bodies ------------------------------------------------------------------------

UNIT = number(0.25, whole=False)
LIBRARIES = {"use_defaults": boolean, "enabled_libraries": [text()]}
SETTINGS = {"pg_settings": map_of_texts, "pgbouncer_settings": map_of_texts, "preload_libraries": LIBRARIES}
COMPUTE = {"settings": SETTINGS, "autoscaling_limit_min_cu": UNIT, "autoscaling_limit_max_cu": UNIT, "provisioner": text(),
           "suspend_timeout_seconds": number(-1, 604800)}
KIND = one_of("read_only", "read_write")
MORE_OF_COMPUTE = {**COMPUTE, "pooler_enabled": boolean, "pooler_mode": one_of("transaction"), "disabled": boolean,
                   "passwordless_access": boolean, "name": text(1, 64)}
QUOTA = {name: number(0) for name in ("active_time_seconds", "compute_time_seconds", "written_data_bytes", "data_transfer_bytes",
                                      "logical_size_bytes")}
PROJECT_SETTINGS = {"quota": QUOTA, "allowed_ips": {"ips": [text()], "protected_branches_only": boolean},
                    "enable_logical_replication": boolean, "block_public_connections": boolean, "block_vpc_connections": boolean,
                    "maintenance_window": {"!weekdays": [number()], "!start_time": text(), "!end_time": text()},
                    "audit_log_level": one_of("base", "extended", "full"), "hipaa": boolean, "preload_libraries": LIBRARIES}
DEFAULTS = {name: rule for name, rule in {**COMPUTE, **SETTINGS}.items() if name not in ("settings", "provisioner", "preload_libraries")}
PROJECT = {"name": text(1, 256), "settings": PROJECT_SETTINGS, "default_endpoint_settings": DEFAULTS,
           "history_retention_seconds": number(0, 2592000)}
RULES = {
    "project_create": {"!project": {**PROJECT, "branch": {"name": text(1, 256), "role_name": text(), "database_name": text(),
                                                          "annotations": map_of_texts},
                                    "autoscaling_limit_min_cu": UNIT, "autoscaling_limit_max_cu": UNIT, "provisioner": text(),
                                    "region_id": text(), "pg_version": number(14, 18), "store_passwords": boolean, "org_id": identifier}},
    "project_update": {"!project": PROJECT},
    "branch_create": {"branch": {"parent_id": identifier, "name": text(1, 256), "parent_lsn": lsn, "parent_timestamp": moment,
                                 "protected": boolean, "archived": boolean, "init_source": one_of("schema-only", "parent-data"),
                                 "expires_at": expiry},
                      "endpoints": [{"!type": KIND, **COMPUTE}], "annotation_value": map_of_texts},
    "branch_update": {"!branch": {"name": text(1, 256), "protected": boolean, "expires_at": nullable(expiry)}},
    "branch_restore": {"!source_branch_id": identifier, "source_lsn": lsn, "source_timestamp": moment, "preserve_under_name": text()},
    "endpoint_create": {"!endpoint": {"!branch_id": identifier, "!type": KIND, "region_id": text(), **MORE_OF_COMPUTE}},
    "endpoint_update": {"!endpoint": {"branch_id": identifier, **MORE_OF_COMPUTE}},
    "database_create": {"!database": {"!name": text(1), "!owner_name": text(1)}},
    "database_update": {"!database": {"name": text(1), "owner_name": text(1)}},
    "role_create": {"!role": {"!name": text(1), "no_login": boolean}},
    "key_create": {"!key_name": text(0, 64)}}


def fit(rule, value, place):
    if callable(rule):
        try:
            return rule(value)
        except ValueError as problem:
            raise refusal(400, f"{place} {problem}") from None
    if isinstance(rule, list):
        if not isinstance(value, list):
            raise refusal(400, f"{place} must be a list")
        return [fit(rule[0], one, f"{place}[{index}]") for index, one in enumerate(value)]
    if not isinstance(value, dict):
        raise refusal(400, f"{place or 'the body'} must be an object")
    rules = {name.lstrip("!"): one for name, one in rule.items()}
    inside = place + "." if place else ""
    for name in rule:
        if name.startswith("!") and name[1:] not in value:
            raise refusal(400, f"{inside}{name[1:]} is required")
    for name in value:
        if name not in rules:
            raise refusal(400, f"{inside}{name} is not known")
    return {name: fit(rules[name], one, inside + name) for name, one in value.items()}


def body(request, name, optional=False):
    """The body of that rule, with times as seconds and LSNs as numbers."""
    if not request.body.strip():
        if optional:
            return {}
        raise refusal(400, "the body is required")
    try:
        value = json.loads(request.body)
    except ValueError:
        raise refusal(400, "the body is not JSON") from None
    return fit(RULES[name], value, "")


# -- parameters --------------------------------------------------------------------

def whole(request, name, least, most, default):
    value = request.query.get(name)
    if value is None:
        return default
    if not re.match(r"-?\d{1,9}$", value) or not least <= int(value) <= most:
        raise refusal(400, f"parameter {name} must be a whole number from {least} to {most}")
    return int(value)


def choice(request, name, values):
    """The first of the values is the default."""
    value = request.query.get(name, values[0])
    if value not in values:
        raise refusal(400, f"parameter {name} must be one of {', '.join(values)}")
    return value


def flag(request, name):
    value = request.query.get(name, "false")
    if value not in BOOLEANS:
        raise refusal(400, f"parameter {name} must be true or false")
    return BOOLEANS[value]

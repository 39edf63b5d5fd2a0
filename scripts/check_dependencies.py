#!/usr/bin/env python3
"""Checks the licences, names and sources of all dependencies against deny.toml, as `cargo deny` would, from what cargo has
recorded. Advisories are not looked up: that needs a network.

    scripts/check_dependencies.py
"""

import json
import pathlib
import re
import subprocess
import sys

try:
    import tomllib
except ImportError:  # Python 3.10
    from pip._vendor import tomli as tomllib

ROOT = pathlib.Path(__file__).parent.parent


def is_allowed(expression, allowed):
    """Whether a licence expression (SPDX, or with the slash of old manifests) can be met with licences that are allowed."""
    tokens = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))
    position = 0

    def peek():
        return tokens[position] if position < len(tokens) else None

    def take():
        nonlocal position
        position += 1
        return tokens[position - 1]

    def atom():
        if peek() == "(":
            take()
            met = alternatives()
            if take() != ")":
                raise ValueError(f"a bracket is open in {expression!r}")
            return met
        licence = take()
        if peek() == "WITH":
            take()
            return f"{licence} WITH {take()}" in allowed
        return licence in allowed

    def all_of():
        met = atom()
        while peek() == "AND":
            take()
            met = atom() and met
        return met

    def alternatives():
        met = all_of()
        while peek() == "OR":
            take()
            met = all_of() or met
        return met

    met = alternatives()
    if position != len(tokens):
        raise ValueError(f"{expression!r} is no licence expression")
    return met


def check_parser():
    """A checker that lets all through would be worse than none."""
    allowed = {"MIT", "Zlib"}
    good = ["MIT", "MIT/GPL-3.0", "GPL-3.0 OR MIT", "(GPL-3.0 OR MIT) AND Zlib", "GPL-3.0 AND X OR Zlib"]
    bad = ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR Zlib) AND GPL-3.0", "MIT WITH Some-exception"]
    assert all(is_allowed(expression, allowed) for expression in good)
    assert not any(is_allowed(expression, allowed) for expression in bad)


def main():
    check_parser()
    rules = tomllib.loads((ROOT / "deny.toml").read_text())
    command = ["cargo", "metadata", "--locked", "--all-features", "--format-version", "1"]
    packages = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)["packages"]
    allowed = set(rules["licenses"]["allow"])
    sources = {f"registry+{registry}" for registry in rules["sources"]["allow-registry"]}
    banned = {entry["crate"]: entry["reason"] for entry in rules["bans"]["deny"]}
    wrong = []
    for package in packages:
        name = f"{package['name']} {package['version']}"
        if not package["license"] or not is_allowed(package["license"], allowed):
            wrong.append(f"{name}: its licence, {package['license']}, is not one of those in deny.toml")
        if package["source"] is None:
            # One of ours, whose own dependencies must say what versions they mean.
            for dependency in package["dependencies"]:
                if dependency["req"] == "*" and dependency["source"] is not None:
                    wrong.append(f"{name}: any version of {dependency['name']} would do")
        elif package["source"] not in sources:
            wrong.append(f"{name}: comes from {package['source']}")
        if package["name"] in banned:
            wrong.append(f"{name}: is banned: {banned[package['name']]}")
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"{len(packages)} packages, {len(wrong)} objections")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())

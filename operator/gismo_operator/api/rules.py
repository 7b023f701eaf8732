"""CEL rules (`x-kubernetes-validations`), which the API server checks; each with words that say what to do.

A rule that reads what another rule checks first lets that one speak: where it cannot be evaluated it is true.
"""

from __future__ import annotations

from typing import Any

Rule = dict[str, Any]

ALIGNMENT_BYTES = 2 * 1024**2
_MOST = "64Ti"  # Kubernetes makes no integer of some larger ones, such as 512Ti
DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"


def rule(expression: str, message: str, **more: Any) -> Rule:
    """One rule."""
    return {"rule": expression, "message": message, **more}


def whole(field: str) -> str:
    """The bytes of a field that is a quantity, an integer or a string."""
    return f"quantity(string({field})).asInteger()"


def is_whole(field: str) -> str:
    """Can whole() be asked of it?"""
    return f"isQuantity(string({field})) && quantity(string({field})).isInteger()"


def dns_label() -> Rule:
    """Of a field that is a name. A pattern in the schema says the same, but in no words."""
    return rule(
        f"self.matches('{DNS_LABEL}')",
        "must be a DNS label: small letters, digits and -, with a letter or a digit at both ends, and no dots",
    )


def size_rules(least_bytes: int, least: str) -> list[Rule]:
    """Of a field that is a size in bytes."""
    return [
        rule("isQuantity(string(self))", "must be a size such as 4Gi or 512Mi"),
        rule(
            f"!isQuantity(string(self)) || quantity(string(self)).compareTo(quantity('{_MOST}')) <= 0",
            f"must be at most {_MOST}",
        ),
        rule(
            f"!isQuantity(string(self)) || quantity(string(self)).compareTo(quantity('{_MOST}')) > 0 || "
            "quantity(string(self)).isInteger()",
            "must be written as a whole number: 4608Mi, not 4.5Gi",
        ),
        rule(f"!({is_whole('self')}) || {whole('self')} >= {least_bytes}", f"must be at least {least}"),
        rule(
            f"!({is_whole('self')}) || {whole('self')} % {ALIGNMENT_BYTES} == 0",
            "must be a multiple of 2Mi, the size of a huge page",
        ),
    ]


def fixed(message: str, *fields: str) -> Rule:
    """These fields of an object cannot be changed. `namespace` is a word of CEL's own, and is escaped."""
    names = [f"__{field}__" if field == "namespace" else field for field in fields]
    return rule(" && ".join(f"self.{name} == oldSelf.{name}" for name in names), message)


def same_size(message: str) -> Rule:
    """A size may be written otherwise, but not be another."""
    return rule(
        "!isQuantity(string(self)) || !isQuantity(string(oldSelf)) || "
        "quantity(string(self)).compareTo(quantity(string(oldSelf))) == 0",
        message,
    )

"""Explanation of one answer: where its uncertainty comes from."""

from bayesdistill.explaining._explain import PARTS, explain

__all__ = ["PARTS", "explain"]

"""Attacks by how requests are cut, joined and ended."""

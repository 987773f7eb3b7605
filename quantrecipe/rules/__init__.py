"""Findings as rules, published numbers, and what they predict."""

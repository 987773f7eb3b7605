"""What ``qrun verify`` looks at, one module a kind of evidence; each adds lines to one report."""

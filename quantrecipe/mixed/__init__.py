"""Mixed precision: the scheme of every layer, chosen by measurement for exactly the bytes at hand."""

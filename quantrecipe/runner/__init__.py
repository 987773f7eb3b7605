"""qrun: carries a recipe out, proves the result, measures it and reports."""

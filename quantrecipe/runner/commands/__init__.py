"""Commands of ``qrun`` beside carrying a recipe out."""

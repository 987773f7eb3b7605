"""The methods of the native backend, one small module each, named as in its paper; registry.py lists them."""

"""The native backend: RTN and GPTQ in pure torch with a compiled inner loop, one decoder block at a time."""

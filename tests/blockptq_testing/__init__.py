"""Helpers of the Python tests: number formats, safetensors, checkpoints, runs of the program."""

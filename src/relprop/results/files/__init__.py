"""Results in files: `save` writes every format, `loading` reads folders back.

A folder holds tensors (safetensors) and a manifest (JSON): no pickle, and nothing is imported by a name in a file.
"""

"""Results in files: `save` writes every format, `loading` reads folders back.

A folder holds tensors (safetensors) and a manifest (JSON). There is no pickle, and no name in a file is imported.
"""

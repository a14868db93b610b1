"""A page of maps: networks, rules and kinds of input side by side. `python -m gallery FOLDER` draws it.

Everything it needs comes in packages (see the Makefile's `gallery`); their own code is not run, only their files are read.
"""

"""Results of explanations, and what is made of them: views, pictures, pages, files.

Each kind of result is one file with a class that implements `Result` (see `protocol`). No other code, here or outside
this package, asks for the kind of a result.
"""

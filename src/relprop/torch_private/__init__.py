"""The private and undocumented names of torch that relprop uses. No other package names one.

Each entry says what it is for, on which torch it exists ("seen on": the oldest and the newest that were tried), and
what happens without it. Where a name is missing, only the feature that needs it raises an error, when it is used; the
import of relprop never fails. `tests/test_torch_private.py` tests each entry by itself, so that a new torch shows at
once what it changed; `tests/test_private_names.py` asserts that no other file names one.

Names needed at every operation are bound directly: a Python function around one would cost more than its call.
"""

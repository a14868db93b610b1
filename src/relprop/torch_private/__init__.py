"""What torch keeps to itself and we need: every private or undocumented name of torch that relprop uses is in here.

Each entry says what it is for, on which torch it is there ("seen on": the oldest and the newest on which it was tried),
and what is done without it. Where a part is missing, the one feature that needs it says so when it is asked for;
importing relprop never fails for it. `tests/test_torch_private.py` tries each by itself, so that a new torch shows at
once what it has changed, and asserts that no other file names one.

Parts that are needed at every operation are bound once, as they are: a Python function around them would cost more than
they do.
"""

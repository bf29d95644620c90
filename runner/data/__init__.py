"""The data stage: `prepare.py` is the whole of it, `reading` its half that needs no numpy."""

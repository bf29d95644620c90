"""Is tuning worth trying at all? `decide.py` is the whole gate, `static.py` its half that needs no numpy."""

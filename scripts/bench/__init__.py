"""The parts of `scripts/bench_train.py`: rows and models, the arms, and figures beside their bars."""

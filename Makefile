# Short names for what contributors do; every target works on a fresh clone.
.PHONY: setup check fix test demo image

setup:
	./scripts/setup

check: setup
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports --no-logo

fix: setup
	.venv/bin/ruff check --fix . && .venv/bin/ruff format .

test:
	./scripts/test

demo:
	./scripts/run manifests/quickstart.yaml

image:
	docker build -t runner --build-arg VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) --build-arg REVISION=$$(git rev-parse HEAD) .

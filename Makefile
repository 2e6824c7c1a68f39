# make demo   conversations with the embedded pair
# make test   every check
PYTHON ?= python3
TORCH_INDEX = https://download.pytorch.org/whl/cpu
BIN = .venv/bin

.PHONY: demo test setup lint

demo: setup
	$(BIN)/selfplay generate

test: setup lint .venv/kernels
	$(BIN)/pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: .venv/complete

# torch comes first and alone: resolved with the rest it would arrive as the CUDA build. The versions all checks passed
# with are in .ci/constraints.txt.
.venv/complete: pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --retries 0 uv 'torch==2.13.0+cpu' --extra-index-url $(TORCH_INDEX)
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c .ci/constraints.txt -e '.[cpu,dev]'
	touch .venv/complete

# What DeepSpeed compiles at first use; needs g++ and ninja, and takes a minute once.
.venv/kernels: .venv/complete
	$(BIN)/python -m selfplay.train.launch.kernels
	touch .venv/kernels

# Partbook: `make demo` does the main job, `make test` runs every test; both set up all they need.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export FLWR_TELEMETRY_ENABLED = 0
export FLWR_DISABLE_UPDATE_CHECK = 1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION = 1
# Where a machine forbids bytecode, each process of a federation would compile torch and Flower anew: twice the start.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test test-fast test-long lint format wheel check-wheel base samples seeds bundle demo-processes soak bench bench-ingest bench-generation bench-startup bench-fresh bench-secagg bench-dp bench-noise bench-accounting bench-utility study-base bench-audit bench-company bench-contention bench-scale bench-thousand bench-large bench-processes bench-recovery bench-devices bench-engines bench-memory bench-yardstick bench-notation bench-training bench-ablation clean

demo: $(READY)  ## four labels, one generator: everything, on real audio
	$(BIN)/partbook demo

demo-processes: $(READY)  ## a coordinator, three labels and a custodian as processes of their own, with TLS
	$(BIN)/partbook demo-processes

soak: $(READY)  ## 200 rounds with random kills and cuts
	$(BIN)/python -m benchmarks.soak --rounds $(or $(ROUNDS),200)

# Half of what the tests do is waiting for processes, so four workers keep two cores busy; WORKERS=2 needs less memory.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(or $(WORKERS),4) --dist loadfile --no-loadscope-reorder

test: $(READY)  ## every test
	$(PYTEST)

test-fast: $(READY)  ## what is over in three minutes, before each commit: all but the slow ones
	$(PYTEST) -m "not slow and not long"

test-long: $(READY)  ## what takes too long for every change: ten times the examples, cuts of a minute, torn writes, 20 rounds of kills and cuts
	$(PYTEST) --timeout 3600 --hypothesis-profile long -m "long or hypothesis"
	$(BIN)/python -m benchmarks.soak --rounds 20

lint: $(READY)  ## ruff and mypy, strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: $(READY)  ## dist/*.whl
	$(BIN)/python -m hatchling build -t wheel

check-wheel: wheel  ## install the wheel for a node alone, in an empty environment, and run it there
	rm -rf build/node && $(PYTHON) -m venv build/node
	build/node/bin/python -m pip install --quiet --no-compile --constraint constraints.txt "$$(ls -t dist/*.whl | head -1)[node]"
	cd build && node/bin/partbook node --help
	build/node/bin/python -I -c "from importlib.util import find_spec as f; assert not any(map(f, ('grpc_reflection', 'music21', 'opacus', 'pytest')))"

bundle: $(READY)  ## an air-gap bundle for ROLE=node, custodian or coordinator: dist/partbook-ROLE-….tar
	$(BIN)/python -m deploy.bundle --role $(or $(ROLE),node)

base: $(READY)  ## make the shipped base model again, from public works alone: days; the same command goes on (DATA=folder)
	nice -n 19 $(BIN)/partbook base train $(if $(DATA),--data $(DATA)) --out common/partbook/model/base

# Seeds are the first three, and nobody has listened before: what comes is what is shown.
SAMPLES := build/samples

samples: $(READY)  ## three pieces by the shipped base into docs/samples/, and README's picture of the first
	rm -rf $(SAMPLES) && mkdir -p $(SAMPLES) docs/samples docs/images
	$(BIN)/partbook generate --base --genre dance --bars 32 --seed 1 --out $(SAMPLES) --name dance
	$(BIN)/partbook generate --base --genre chorale --bars 32 --seed 2 --out $(SAMPLES) --name chorale
	$(BIN)/partbook generate --base --genre quartet --bars 32 --seed 3 --out $(SAMPLES) --name quartet
	cp $(SAMPLES)/*.mid docs/samples/
	$(BIN)/python -m partbook.simulation.roll docs/samples/dance.mid docs/images/dance.png --title "A dance" --subtitle "Written by the shipped base: seed 1, 32 bars at most"

seeds: $(READY)  ## the demo without noise on three seeds, and the table of docs/figures.md
	$(BIN)/python -m benchmarks.seeds --noise none

bench: bench-ingest bench-generation bench-startup bench-secagg bench-dp bench-noise bench-accounting

bench-ingest bench-generation bench-startup bench-fresh bench-secagg bench-dp bench-noise bench-accounting bench-audit bench-company bench-contention bench-scale bench-thousand bench-processes bench-recovery bench-devices bench-engines bench-yardstick: bench-%: $(READY)  ## claims, measured against their peers or limits
	$(BIN)/python -m benchmarks.$*

STUDY_COLLECTIONS := bach monteverdi openscore-lieder openscore-quartets
study-base: $(READY)  ## the base of bench-utility, which knows no dance tune and no pop song: an hour of a core, once (DATA=folder)
	$(BIN)/partbook base train --data $(DATA) $(STUDY_COLLECTIONS:%=--collection %) --tokenizer common/partbook/model/base/tokenizer.json --works 75 --tokens 6500000 --state .cache/study-state --out .cache/study-base

bench-utility bench-notation: bench-%: $(READY)  ## what rounds teach of styles that the base never saw; whether heard notes are written rightly (DATA=folder)
	$(BIN)/python -m benchmarks.$* $(if $(DATA),--data $(DATA))

bench-training: $(READY)  ## the base's training loop beside a bare one
	$(BIN)/python -m benchmarks.training_loop

bench-ablation: $(READY)  ## what each part of the base's recipe is worth: seven trainings of twenty minutes of a core (DATA=folder)
	$(BIN)/python -m benchmarks.ablation $(if $(DATA),--data $(DATA))

bench-large: $(READY)  ## a sealed update of 50M numbers, end to end: memory of every process
	$(BIN)/python -m benchmarks.large_update

bench-memory: $(READY)  ## what hearing the past is worth, for the newest run of the demo (or RUN=runs/…)
	$(BIN)/python -m benchmarks.memory $(or $(RUN),$(lastword $(sort $(wildcard runs/*))))

.PHONY: listen-check
listen-check: $(READY)  ## the listening test's page, taken by keyboard in a headless Chromium (apt-get install chromium)
	$(BIN)/python -m benchmarks.listening

# The constraints pin every package, so pip has nothing to resolve; grpcio-tools and hatchling are among them, so the
# editable install needs no build environment of its own. Modules are compiled when first imported, not all at once:
# that is a minute and a half of set-up saved.
$(READY): pyproject.toml constraints.txt build_protos.py $(wildcard server/partbook/generator/v1/*.proto)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --no-compile --requirement constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check
	@touch $@

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

# ---- what the suite is worth: does it notice faults, and what does it reach
.PHONY: mutants coverage coverage-floor

mutants: $(READY)  ## put each seeded fault into a copy of the tree: the tests must notice (ONLY=name for one)
	$(BIN)/python -m tests.mutants $(addprefix --only ,$(ONLY))

COVERED = mkdir -p build/coverage && $(PYTEST) --cov --cov-report=json

coverage: $(READY)  ## every test, and the lines and branches that it reaches, kept in docs/figures/
	$(COVERED)
	$(BIN)/python -m tests.coverage_table --keep

coverage-floor: $(READY)  ## the same, compared with what is kept
	$(COVERED)
	$(BIN)/python -m tests.coverage_table

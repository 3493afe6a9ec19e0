# The one front door. Every target sets up what it needs; a fresh clone needs git, make and Python 3.11 to 3.13.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
BROWSER := $(VENV)/browser
FAULTS := $(VENV)/faults
STYLE = $(BIN)/ruff format --check . && $(BIN)/ruff check .
TYPES = $(BIN)/pyright --pythonpath $(BIN)/python && $(BIN)/lint-imports
# Three workers for two cores: tests wait for disks, daemons and processes of their own.
PYTEST = $(BIN)/pytest -q -n 3 --dist loadfile --no-loadscope-reorder
UI := http://127.0.0.1:3000

# Each of the processes that tests start would compile d4m again.
unexport PYTHONDONTWRITEBYTECODE

export DAGSTER_HOME := $(CURDIR)/dagster_home
export D4M_STORE := $(CURDIR)/store
export D4M_RECIPES := $(CURDIR)/recipes

.PHONY: demo test test-faults test-browser check format reference docs dev bench bench-synthesis bench-students bench-data bench-gpu bench-samplers bench-scale bench-workers bench-cluster ablation training-sets clean

demo: $(READY)                 ## Distil the digits and print their scores.
	@PYTHONWARNINGS=ignore $(BIN)/dagster asset materialize -m d4m_assets --select '*' --partition digits --config dagster_home/terminal.yaml
	@$(BIN)/d4m compare digits
	@echo "next: source $(BIN)/activate; d4m report digits --open (images, scores and costs on one page)"
	@echo "more: d4m show digits (leads, image fidelity, folder); make dev (the same in the Dagster UI)"

test: $(READY)                 ## Everything that must hold before a change lands.
	$(STYLE)
	@echo 'types and layers are checked next to the tests, and come last'
	@{ $(TYPES); } > $(VENV)/types.txt 2>&1 & types=$$!; \
	OMP_NUM_THREADS=1 $(PYTEST) --ignore=tests/browser; tests=$$?; \
	wait $$types; types=$$?; cat $(VENV)/types.txt; exit $$((tests | types))

test-faults: $(FAULTS)         ## Kills, damage, full disks and fuzz at length.
	OMP_NUM_THREADS=1 D4M_FAULTS=long $(PYTEST) tests/faults tests/deploy

test-browser: $(BROWSER)       ## The UI in a browser without a window.
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -p no:randomly tests/browser

check: $(READY)                ## Format, lint, types and layers.
	$(STYLE)
	$(TYPES)

format: $(READY)               ## Put the code into the house's format.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

reference: $(READY)            ## Write docs/reference/recipe.md and command_line.md.
	$(BIN)/python docs/reference/generate.py

docs: $(READY)                 ## The documentation as a site in build/docs/site, for reading without a network.
	$(BIN)/python docs/site/build.py

dev: $(READY)                  ## The Dagster UI on http://127.0.0.1:3000.
	@echo "scores:   $(UI)/assets/evaluation_scores?view=partitions&partition=digits"
	@echo "pictures: $(UI)/assets/synthetic_images?view=partitions&partition=digits"
	@echo "graph:    $(UI)/asset-groups"
	@$(BIN)/dagster dev -w workspace.yaml -h 127.0.0.1

bench: $(READY)                ## Measure anew what benchmarks/README.md reports.
	$(BIN)/python benchmarks/digits.py

bench-synthesis: $(READY)      ## The published procedure beside ours: images a second, prototypes.
	$(BIN)/python benchmarks/synthesis.py

bench-students: $(READY)       ## The published training loop beside ours: images a second, labels.
	$(BIN)/python benchmarks/student_training.py

bench-data: $(READY)           ## Views, labels, reading and prototypes of large data, as it was and as it is.
	$(BIN)/python benchmarks/data_path.py

bench-gpu: $(READY)            ## One device in eight minutes: a table and a JSON file; run it on a GPU.
	$(BIN)/python benchmarks/gpu.py

bench-samplers: $(READY)       ## Few-step samplers beside PNDM: time and closeness.
	$(BIN)/python benchmarks/samplers.py

bench-scale: $(READY)          ## Memory and time over 5,000 and 50,000 files.
	$(BIN)/python benchmarks/scale.py

bench-workers: $(READY)        ## Two workers of Ray, compared with one process.
	$(BIN)/python benchmarks/workers.py

bench-cluster: $(FAULTS)       ## A bucket and workers at length: cost of a unit, 1,000 classes, delays, kills; hours.
	PYTHONPATH=. $(BIN)/python benchmarks/cluster.py

training-sets: $(READY)        ## Synthetic Fashion-MNIST beside every other training set; long on a CPU.
	$(BIN)/python benchmarks/training_sets.py

ablation: $(READY)             ## What each upgrade is worth on Fashion-MNIST; long on a CPU.
	$(BIN)/python benchmarks/ablation.py

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] < (3, 14) else "d4m needs Python 3.11, 3.12 or 3.13; name one by PYTHON=python3.13")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	touch $@

$(FAULTS): $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group faults
	touch $@

$(BROWSER): $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group browser
	command -v chromium || command -v chromium-browser || command -v google-chrome || $(BIN)/playwright install chromium
	touch $@

clean:                         ## Forget the installation; recipes and artifacts stay.
	rm -rf $(VENV) build *.egg-info

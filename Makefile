# Every target sets up the environment by itself (see .ci/setup). PY=/path/to/python uses an existing one instead, for
# example conda's, and installs nothing.
ifeq ($(origin PY),undefined)
PY := .venv/bin/python
SETUP := setup
endif

ARGS ?=
WORKERS ?= 2
DEMO ?= --epochs 6 --batch_size 32 --wandb disabled

.DEFAULT_GOAL := help
.PHONY: help setup demo run test test-faults soak check format golden docs figures bench clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 20
	@echo '  Each takes PY=/path/to/python: use that environment, install nothing.'

# What to type next is for those who typed `make setup`.
NEXT := Ready. Type `. .venv/bin/activate`, then `python main.py --dgl --dataset digits`, or `make run ARGS="..."` at any time.
setup: ## make .venv (the other targets do it themselves)
	@.ci/setup
	@$(if $(filter setup,$(MAKECMDGOALS)),echo '$(NEXT)')

demo: $(SETUP) ## train with dgl and with back-propagation on small data in the code, and compare
	@set -e; dir=experiments/demo-$$(date +%Y%m%d-%H%M%S); \
	set -x; \
	$(PY) main.py --dataset digits --dgl --path $$dir --name dgl $(DEMO); \
	$(PY) main.py --dataset digits --path $$dir --name bp $(DEMO); \
	$(PY) main.py report $$dir --out $$dir/report

run: $(SETUP) ## a run: make run ARGS="--device cuda:0 --dgl"
	@$(PY) main.py $(ARGS)

# A file stays in one process: its tests share fixtures.
test: $(SETUP) ## the tests, in WORKERS=2 processes; ARGS="-k name" picks some
	@$(PY) -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

test-faults: $(SETUP) ## every fault injected for real: kills, full disks, bad input (docs/reliability.md)
	@$(PY) -m pytest tests/faults -m "" --timeout 600 --durations 10 $(ARGS)

soak: $(SETUP) ## half an hour of kills and resumes against an undisturbed run; ARGS="--minutes 3" is shorter
	@$(PY) -m tests.faults.soak $(ARGS)

check: $(SETUP) ## formatting, lint and types
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy .

format: $(SETUP) ## format the code and mend what lint can mend
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

golden: $(SETUP) ## write the golden traces of a rule or a task: make golden NAME=dgl
	@$(PY) -m tests.methods.test_golden $(NAME)

docs: $(SETUP) ## write docs/methods.md from the docstrings, and measured results into README.md and configs/
	@$(PY) docs/generate.py
	@$(PY) docs/measured.py

figures: $(SETUP) ## draw the figures in images/ from the results that the studies keep
	@set -e; dir=$$(mktemp -d); trap 'rm -rf $$dir' EXIT; \
	draw() { $(PY) main.py report experiments/studies/$$1/results*.csv --out $$dir/$$1 >$$dir/log; \
	  cp $$dir/$$1/$$2.svg images/$$3.svg; echo images/$$3.svg; }; \
	draw 2026-11-21_heads comparison heads; \
	draw 2026-11-21_thesis ranking thesis; \
	draw 2026-11-21_learning_rates against learning_rates; \
	$(PY) docs/families.py images/families.svg; echo images/families.svg; \
	$(PY) -m benchmarks.tables experiments/studies/2026-11-21_speed/throughput.csv images/speed.svg; echo images/speed.svg; \
	trained=experiments/studies/2026-11-27_trained; \
	$(PY) $$trained/gap.py $$trained/curves.csv images/gap.svg; echo images/gap.svg; \
	theory=experiments/studies/2026-11-27_theory; \
	$(PY) $$theory/draw.py $$theory/results.csv images/theory_rules.svg images/theory_layers.svg; \
	echo images/theory_rules.svg images/theory_layers.svg; \
	signals=experiments/studies/2026-11-27_signals; \
	$(PY) $$signals/by_rule.py $$signals images/signals.svg >/dev/null; echo images/signals.svg; \
	families=experiments/studies/2026-11-27_families; \
	$(PY) $$families/disguise.py $$families images/disguise.svg >/dev/null; echo images/disguise.svg; \
	scaling=experiments/studies/2026-11-21_layer_parallel; \
	$(PY) $$scaling/figure.py $$scaling/scaling.csv images/scaling.svg; echo images/scaling.svg

bench: $(SETUP) ## the benchmarks
	@$(PY) -m benchmarks $(ARGS)

# Runs and data stay, and so does the cached environment, which other clones may use.
clean: ## remove caches and the link .venv
	@[ ! -L .venv ] || rm .venv
	@rm -rf .pytest_cache .hypothesis .mypy_cache .ruff_cache *.egg-info
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

# The whole pipeline as file targets. `make help` says what there is.

DATA      ?=
CONFIG    ?= pipelines/sample.toml
OUTPUT    ?= output
CATALOGUE ?= $(shell sed -n 's/^[[:space:]]*catalogue[[:space:]]*=[[:space:]]*"\([^"]*\)".*/\1/p' '$(CONFIG)')
FLAGS     ?=
GPU       ?=
DRY_RUN   := $(findstring n,$(firstword -$(MAKEFLAGS)))
RUN_NAME  := $(shell date -u +%Y-%m-%dT%H:%M:%SZ)

ifneq ($(words $(OUTPUT)) $(words $(CONFIG)),1 1)
$(error OUTPUT and CONFIG must be one path each, without blanks: make cannot have those in a target)
endif
ifeq ($(wildcard $(CONFIG)),)
$(error There is no settings file '$(CONFIG)'; CONFIG=pipelines/sample.toml is one)
endif

CARGO    ?= cargo
LOOKBOOK := $(or $(CARGO_TARGET_DIR),target)/release/lookbook
SOURCE   := $(or $(DATA),$(OUTPUT)/sample)
SHOWN    := $(or $(CATALOGUE),$(OUTPUT)/dataset)
# What the stages hang on beside each other's output: their settings, and lists of the source and the catalogue. These
# files are looked at in every run and written only where something changed.
STATE    := $(OUTPUT)/.make

export GPU

.PHONY: all build runtime test test-faults test-airflow bench bench-peers clean distclean help FORCE
.DELETE_ON_ERROR:
# A stage publishes its folder whole or not at all; without its run.json no stage would take the folder for its own.
.PRECIOUS: $(patsubst %,$(OUTPUT)/%/run.json,sample dataset model features similarity report)
# Every stage takes all processors.
.NOTPARALLEL:

## all: build, then every stage whose settings or inputs changed, up to the report
all: $(OUTPUT)/report/run.json
	@echo '$(if $(WORKED),done,nothing to do: all is up to date);' the report is $(OUTPUT)/report/index.html

## build: the program, target/release/lookbook
build: $(LOOKBOOK)

$(LOOKBOOK): Cargo.toml Cargo.lock build.rs $(shell find src -type f)
	$(CARGO) build --release --locked
	@touch $@

## runtime: ONNX Runtime into .runtime/ (GPU=1: the CUDA build with NVIDIA's libraries)
runtime:
	@scripts/install_onnxruntime.sh

# A new program does not make old data wrong: it is an order-only prerequisite.
PROGRAM := | $(LOOKBOOK) runtime

# run NAME, FLAGS: one stage. Exit code 3 (published, but more rejects than allowed) has to fail in the next run too.
define run
$(eval WORKED := 1)$(LOOKBOOK) $(1) $(2) --config $(CONFIG) --run-name $(RUN_NAME) $(FLAGS) || \
  { status=$$?; [ $$status -ne 3 ] || touch -t 200001010000 $@; exit $$status; }
endef

# keep COMMAND: the target gets what the command prints, and a new time only where that is not what it held. `make -n` does
# it too (+), else it would have to take every stage for one to be run; what cannot be told before a stage has run is new.
define keep
+@mkdir -p $(@D)
+@{ $(1); } > $@.new $(if $(DRY_RUN),2>/dev/null) || { rm -f $@.new; $(if $(DRY_RUN),exit 0,exit 1); }; \
  if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi
endef

# list PATH: every file with size and time.
list = { echo '$(1)' && find -L '$(1)' -type f -printf '%P %s %T@\n'; }

$(STATE)/%.settings: FORCE | $(LOOKBOOK)
	$(call keep,$(LOOKBOOK) settings $* --config $(CONFIG))

$(STATE)/source: FORCE $(if $(DATA),,$(OUTPUT)/sample/run.json)
	$(call keep,$(call list,$(SOURCE)) | LC_ALL=C sort)

$(STATE)/catalogue: FORCE $(OUTPUT)/dataset/run.json
	$(call keep,$(call list,$(SHOWN)) | LC_ALL=C sort)

$(OUTPUT)/sample/run.json: $(STATE)/sample.settings $(PROGRAM)
	$(call run,sample,--output $(@D))

$(OUTPUT)/dataset/run.json: $(STATE)/convert.settings $(STATE)/source $(PROGRAM)
	$(call run,convert,--source '$(SOURCE)' --output $(@D))

$(OUTPUT)/model/run.json: $(STATE)/train.settings $(OUTPUT)/dataset/run.json $(PROGRAM)
	$(call run,train,--dataset $(OUTPUT)/dataset --output $(@D) --resume=auto)

$(OUTPUT)/features/run.json: $(STATE)/segment.settings $(OUTPUT)/model/run.json $(STATE)/catalogue $(PROGRAM)
	$(call run,segment,--catalogue '$(SHOWN)' --model $(OUTPUT)/model --output $(@D))

$(OUTPUT)/similarity/run.json: $(STATE)/similarity.settings $(OUTPUT)/features/run.json $(PROGRAM)
	$(call run,similarity,--features $(OUTPUT)/features --output $(@D))

$(OUTPUT)/report/run.json: $(STATE)/report.settings $(OUTPUT)/similarity/run.json $(PROGRAM)
	$(call run,report,--run $(OUTPUT) --output $(@D))

## test: formatting, lints, tests and documentation, the cheapest first (what .ci/run calls)
test:
	scripts/check.sh

## test-faults: fails or kills a run at every file system call of every stage that publishes (strace; about half an hour)
test-faults: runtime
	scripts/install_test_tools.sh
	LOOKBOOK_FAULTS=all $(CARGO) test --release --locked --test it -- faults --nocapture

## test-airflow: the Airflow DAG for real over a small sample; gets Airflow into .airflow/
test-airflow: build runtime
	scripts/test_airflow.sh $(LOOKBOOK)

## bench: every stage over the sample from nothing, seconds each
bench: build runtime
	scripts/bench.sh $(LOOKBOOK) $(CONFIG)

## bench-peers: beside PyTorch, TensorFlow, OpenVINO and others; the tables of docs/benchmarks.md (SECTIONS=... for some)
bench-peers:
	@scripts/bench_peers.sh $(SECTIONS)

## clean: what the stages wrote below OUTPUT
clean:
	@for stage in sample dataset model features similarity report; do \
	  [ ! -e $(OUTPUT)/$$stage/run.json ] || rm -rf $(OUTPUT)/$$stage; \
	  rm -rf $(OUTPUT)/.$$stage.* $(OUTPUT)/$$stage.shards; \
	done
	rm -rf $(STATE) $(OUTPUT)/runs
	@[ ! -d $(OUTPUT) ] || rmdir $(OUTPUT) 2>/dev/null || echo '$(OUTPUT) holds other files: they stay'

## distclean: clean, and the program, the compiled dependencies, ONNX Runtime and the peers
distclean: clean
	$(CARGO) clean
	rm -rf .runtime .peers

## help: this text
help:
	@sed -n 's/^## /  make /p' Makefile
	@echo 'Variables:'
	@echo '  DATA=FOLDER       the data set: CFPD (fashon_parsing_data.mat, image/) or CCP layout; default: the built-in sample'
	@echo '  CONFIG=FILE       the settings (now $(CONFIG))'
	@echo '  OUTPUT=FOLDER     where everything goes (now $(OUTPUT))'
	@echo '  CATALOGUE=PATH    photos to segment; default: that of the settings, else the photos of the data set'
	@echo '  FLAGS=...         for every stage, as --log-format json; settings belong into CONFIG'
	@echo '  GPU=1             ONNX Runtime with CUDA'
	@echo 'A stage runs again where its settings, its inputs or the list of its source files changed. A new program alone'
	@echo 'makes nothing run again: "make clean all" does.'

# Builds lookbook and calls it. `make help` says what there is; what runs, and why, is decided by `lookbook run`.

DATA      ?=
CONFIG    ?= pipelines/sample.toml
OUTPUT    ?=
CATALOGUE ?=
FLAGS     ?=
GPU       ?=
ARCH      ?=
DRY_RUN   := $(findstring n,$(firstword -$(MAKEFLAGS)))

CARGO     ?= cargo
LOOKBOOK  := $(or $(CARGO_TARGET_DIR),target)/release/lookbook

# quoted NAME, VALUE: the flag, if there is a value. A quote within a value ends the shell's quotes, comes by itself, and
# begins them again.
quoted     = $(if $(strip $(2)),$(1) '$(subst ','\'',$(2))')

export GPU

.PHONY: all build runtime encoder encoder-of-settings test test-faults fuzz test-airflow test-parsers test-store test-ray bench bench-peers test-gpu-bench bench-duplicates wheel test-wheel test-container clean distclean help

## all: build, then every stage that is stale, up to the report (make -n all: what would be run, and why)
all: $(if $(DRY_RUN),,build runtime encoder-of-settings)
	$(if $(DRY_RUN),$(if $(wildcard $(LOOKBOOK)),,$(error there is no $(LOOKBOOK) yet; `make build` makes it)))
	+@$(LOOKBOOK) run $(call quoted,--config,$(CONFIG)) $(call quoted,--output,$(OUTPUT)) $(call quoted,--source,$(DATA)) \
	  $(call quoted,--catalogue,$(CATALOGUE)) $(if $(DRY_RUN),--dry-run) $(FLAGS)

## build: the program, target/release/lookbook
build:
	@scripts/install_build_tools.sh
	@$(CARGO) build --release --locked

## runtime: ONNX Runtime into .runtime/ (GPU=1: the CUDA build with NVIDIA's libraries)
runtime:
	@scripts/install_onnxruntime.sh

## encoder: the pretrained encoders into .encoder/ (make all gets them if the settings train with one)
encoder:
	@scripts/install_encoder.sh

# If the settings train with an installed encoder: gets it, to where they look for it.
encoder-of-settings: build
	@folder=$$($(LOOKBOOK) settings train $(call quoted,--config,$(CONFIG)) 2>/dev/null | \
	  sed -n 's|^ *"encoder": "\(.*\.encoder\)/efficientnet-lite[02]\.safetensors",$$|\1|p'); \
	[ -z "$$folder" ] || scripts/install_encoder.sh "$$folder"

## test: formatting, lints, tests and documentation, the cheapest first (what .ci/run calls)
test:
	scripts/check.sh

## test-faults: fails or kills a run at every file system call of every stage that publishes (strace; about an hour)
test-faults: runtime
	scripts/install_test_tools.sh
	LOOKBOOK_FAULTS=all $(CARGO) test --release --locked --test it -- faults --nocapture

## fuzz: files of every kind, changed at random, for MINUTES=30; nothing may panic, abort, hang or take over 4 GB
MINUTES   ?= 30
fuzz: runtime
	ulimit -v 4000000; LOOKBOOK_FUZZ_MINUTES=$(MINUTES) $(CARGO) test --release --locked --test it -- fuzz --nocapture

## test-airflow: the Airflow DAG for real over a small sample; gets Airflow into .airflow/
test-airflow: build runtime
	scripts/install_environment.sh airflow
	scripts/install_environment.sh store
	LOOKBOOK_PROGRAM=$(abspath $(LOOKBOOK)) .airflow/bin/python pipelines/airflow/test_lookbook_nightly.py

## test-store: every request of a stage that publishes in an object store fails, breaks off, repeats or is late; nights in s3s-fs and Azurite
test-store: runtime
	scripts/install_environment.sh store
	scripts/install_stores.sh
	LOOKBOOK_FAULTS=all $(CARGO) test --release --locked --test it -- store:: stores:: --nocapture

## test-ray: shards on a Ray cluster of three nodes, one of which is killed; gets Ray into .ray/
test-ray: build
	scripts/install_environment.sh ray
	scripts/install_environment.sh store
	LOOKBOOK_PROGRAM=$(abspath $(LOOKBOOK)) .ray/bin/python pipelines/ray/test_lookbook_ray.py

## test-parsers: exports networks of other programs, untrained, and compares labels; gets PyTorch and others into .parsers/
test-parsers: build runtime
	scripts/install_environment.sh parsers
	scripts/test_parsers.sh $(LOOKBOOK)

## wheel: a Python wheel into dist/, for machines without Rust (ARCH=aarch64: for such); gets maturin and Zig into .wheel/
wheel: build
	CARGO=$(CARGO) ARCH=$(ARCH) scripts/wheel/build.sh $(LOOKBOOK)

## test-wheel: installs the wheel in empty environments by pip and uv, from nothing to the report
test-wheel: wheel
	.wheel/bin/python scripts/wheel/test_wheel.py dist/lookbook-*_$$(uname -m).whl

## test-container: the image of Containerfile, built, or its steps done one by one (as root, with debootstrap)
test-container: wheel
	@command -v podman >/dev/null || command -v docker >/dev/null || scripts/install_test_tools.sh debootstrap
	.wheel/bin/python scripts/wheel/container.py

## bench: every stage over the sample from nothing, seconds each
bench: build runtime
	scripts/bench.sh $(LOOKBOOK) $(CONFIG)

## bench-peers: beside PyTorch, TensorFlow, OpenVINO and others; the tables of docs/benchmarks.md (SECTIONS=... for some)
bench-peers:
	@scripts/bench_peers.sh $(SECTIONS)

## test-gpu-bench: packs and runs scripts/gpu_bench.sh with the CPU in the GPU's place, at tiny sizes; every table has its figures
test-gpu-bench: runtime
	scripts/install_environment.sh peers
	.peers/bin/python -m unittest discover --start-directory scripts/gpu --pattern 'test_*.py'

## bench-duplicates: duplicates beside imagededup and imagehash, on changed copies of the photos of DATA; the tables of docs/duplicates.md
bench-duplicates: build runtime
	scripts/install_environment.sh duplicates
	.duplicates/bin/python scripts/duplicates/bench.py $(LOOKBOOK) '$(DATA)'

## clean: what the stages wrote below OUTPUT (output/ if none is named)
clean:
	@cd '$(subst ','\'',$(or $(OUTPUT),output))' 2>/dev/null || exit 0; \
	for stage in sample dataset model features similarity duplicates report; do \
	  [ ! -e $$stage/run.json ] || rm -rf $$stage; rm -rf .$$stage.* $$stage.shards; \
	done; rm -rf runs

## distclean: clean, and the program, the compiled dependencies, ONNX Runtime, the encoder and the peers
distclean: clean
	$(CARGO) clean
	rm -rf .runtime .encoder .peers .parsers .store .stores .ray .duplicates .outfits .wheel dist

## help: this text
help:
	@sed -n 's/^## /  make /p' Makefile
	@echo 'Variables:'
	@echo '  DATA=FOLDER       the data set: CFPD, CCP, COCO, masks or Label Studio (docs/sources.md); default: that of'
	@echo '                    the settings, else the built-in sample'
	@echo '  CONFIG=FILE       the settings (now $(CONFIG))'
	@echo '  OUTPUT=FOLDER     where everything goes; default: that of the settings, else output'
	@echo '  CATALOGUE=PATH    photos to segment; default: those of the settings, else the photos of the data set'
	@echo '  FLAGS=...         more flags of "lookbook run", as --log-format json'
	@echo '  GPU=1             ONNX Runtime with CUDA'

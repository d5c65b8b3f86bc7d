# make run and make test set up everything they need, in .venv and build/.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
DEMO := build/demo/.made

.DEFAULT_GOAL := help
.PHONY: help run test check bench bench-rivals chaos explore test-llama-cpp-python test-clients test-browser clean

# What a person types. Each target installs what it needs from Debian's, crates.io's and PyPI's
# packages; run as root.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 16

setup-build: ## what the build needs
	@tests/setup build

setup-run: ## what a host needs to run pods
	@tests/setup run

setup-test: ## what the tests need
	@tests/setup test

# OpenSSL for git: the distribution's own where it can be linked statically (its security updates come with it, and
# compiling it takes a fifth of a build); else the one that its crate brings, compiled.
LIBSSL = $(shell pkg-config --variable=libdir libcrypto 2>/dev/null)
HAVE_LIBSSL = $(shell test -f $(LIBSSL)/libssl.a -a -f $(LIBSSL)/libcrypto.a && echo 1)
# The directories are named, else pkg-config's crate refuses to link statically what lies below /usr.
CARGO = $(if $(HAVE_LIBSSL),OPENSSL_NO_VENDOR=1 OPENSSL_STATIC=1 OPENSSL_LIB_DIR=$(LIBSSL) OPENSSL_INCLUDE_DIR=$(shell pkg-config --variable=includedir libcrypto)) cargo

# Static programs that run on any distribution. The flags must not reach build scripts: --target keeps them away.
HOST = $(shell rustc --print host-tuple)
release bench: export RUSTFLAGS = -C target-feature=+crt-static
# No panic goes through the C libraries: without its tables they are a fifth smaller.
release bench: export CFLAGS += -fno-asynchronous-unwind-tables -fno-unwind-tables

# Small: equal functions once, equal read-only data too (tables for unwinding most of all), relocations packed.
# What tells constants apart by their addresses would break; data with pointers in it, as vtables, is left alone.
# Rust brings a linker that can for this host only; the C library resolves packed relocations since 2.36.
GLIBC = $(shell ldd --version | sed -n '1s/.* //p')
RELR = $(if $(filter 2.36,$(shell printf '%s\n' 2.36 $(GLIBC) | sort -V | head -n 1)),-C link-arg=-Wl$(comma)-z$(comma)pack-relative-relocs)
LINK = $(if $(filter x86_64-unknown-linux-gnu,$(HOST)),-C link-arg=-Wl$(comma)--icf=all -C link-arg=-Wl$(comma)--ignore-data-address-equality $(RELR))
comma := ,

release: setup-build ## build the static release binaries
	$(CARGO) rustc --release --locked --target $(HOST) --bin podbay -- $(LINK)
	$(CARGO) rustc --release --locked --target $(HOST) --bin podbay-shim -- -C relocation-model=static
	mkdir -p target/release
	for program in podbay podbay-shim; do strip -o target/release/$$program target/$(HOST)/release/$$program; done
	tests/is-static target/release/podbay target/release/podbay-shim

demo: setup-run release ## start Podbay on examples/manifests (CHECK=1: verify, then remove everything)
	examples/demo $(if $(CHECK),--check)

lint: setup-test ## formatting, clippy (warnings are errors), dependencies
	cargo fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	cargo deny check bans licenses sources

# The same random cases everywhere: what fails here fails there. Any other number tries others.
test: export PROPTEST_RNG_SEED ?= 20261125
# Half of what the tests do is wait: for probes, back-offs, graces.
test: export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(nproc))))
test: setup-test ## every test, skipping nothing (as root; ARGS="--test it scripts": some alone)
	$(CARGO) test --locked --no-fail-fast $(ARGS)

# FUZZ_SECONDS=600 longer; TARGETS="layer cri_requests" some alone.
FUZZ_SECONDS ?= 60
fuzz: setup-build ## look for bytes that break what reads strangers' bytes (libFuzzer, nightly toolchain)
	tests/setup fuzz
	tests/fuzz/run $(FUZZ_SECONDS) $(TARGETS)

bench: release ## print the figures
	tests/setup bench
	PODBAY_BIN=$(CURDIR)/target/release $(CARGO) bench --locked --target $(HOST)
	@stat -c 'release program: %s bytes (budget 41943040)' target/release/podbay

test-hosts: setup-test release ## units and cgroup v2 on real hosts with systemd (virtual machines)
	tests/hosts/run

install: setup-run release ## install binaries and units into the system, and what pods need of it
	install -Dm755 -t $(DESTDIR)/usr/local/bin target/release/podbay target/release/podbay-shim
	ln -sf podbay $(DESTDIR)/usr/local/bin/podbay-oci
	install -Dm644 -t $(DESTDIR)/etc/systemd/system systemd/*.service systemd/*.slice
	install -Dm644 -t $(DESTDIR)/usr/local/share/doc/podbay README.md systemd/podbay.toml
	install -Dm644 -t $(DESTDIR)/usr/local/share/doc/podbay/docs docs/*.md
	install -d $(DESTDIR)/etc/podbay

.PHONY: help setup-build setup-run setup-test release demo lint test fuzz bench test-hosts install

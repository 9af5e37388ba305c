# Every verb a contributor needs. `make` alone lists them.
VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= python3
STAMP := $(VENV)/.set-up
BENCH_STAMP := $(VENV)/.set-up-bench
DATACENTER := packages/datacenter/src/datacenter
NATIVE := packages/leakline/src/leakline/recorder/native packages/leakline/src/leakline/recorder/target $(DATACENTER)/broker/native $(DATACENTER)/sockets/native

# Half of the start of each process is the compiling of our sources, where it must not be kept.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types unit native native-sanitized bench format docs-options clean

help: ## list the verbs
	@awk -F':.*## ' '/^[a-z][a-zA-Z_-]*:.*## /{printf "  make %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## make the virtual environment .venv (and install Debian packages where root allows)

$(STAMP): pyproject.toml constraints.txt scripts/setup scripts/debian-packages packages/leakline/pyproject.toml packages/datacenter/pyproject.toml packages/leakline/hatch_build.py packages/datacenter/hatch_build.py
	@scripts/setup "$(PYTHON)" "$(VENV)"
	@touch $@

$(BENCH_STAMP): $(STAMP)
	@scripts/install-group "$(VENV)" bench
	@touch $@

demo: $(STAMP) ## play incident A with real processes (75 s)
	@$(BIN)/datacenter demo

test: lint types native-sanitized unit ## everything that must be green: lint, types, C under ASan and UBSan, tests

lint: $(STAMP)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(STAMP)
	@$(BIN)/mypy packages/leakline/src packages/datacenter/src bench casebook

unit: $(STAMP) native
	@$(BIN)/pytest -q -n 2 --dist loadfile -m "not alone" --ignore=packages/datacenter
	@$(BIN)/pytest -q -n 2 --dist loadfile -m "not alone" --leakline packages/datacenter
	@$(BIN)/pytest -q -n 2 -m alone

native: $(STAMP) ## build the C libraries in place
	@for folder in $(NATIVE); do $(MAKE) --no-print-directory --silent -C $$folder || exit; done

native-sanitized: $(STAMP) ## run the tests of the C libraries under ASan and UBSan, against the real libzmq
	@for folder in $(NATIVE); do $(MAKE) --no-print-directory --silent -C $$folder PYTHON=$(abspath $(BIN)/python) sanitized || exit; done

.PHONY: casebook
casebook: $(STAMP) native ## play every incident: leakline must name finding and line, and nothing in the program put right (CASE=a: those that begin so)
	@$(BIN)/python -m casebook $(CASE)

bench: $(BENCH_STAMP) ## side by side with raw pyzmq, nats-py and grpc.aio, in one interleaved run
	@$(BIN)/python -m bench

.PHONY: wheel wheel-aarch64
wheel: $(STAMP) ## dist/leakline-*-py3-none-linux_x86_64.whl: one for all Pythons, the recorder in it
	@$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist packages/leakline && ls dist/leakline-*

wheel-aarch64: $(STAMP) ## the same for aarch64, by Debian's gcc-aarch64-linux-gnu
	@CC=aarch64-linux-gnu-gcc $(MAKE) --no-print-directory wheel

docs-options: $(STAMP) ## make docs/options.md from the options in the code
	@$(BIN)/python -m datacenter.options_page > docs/options.md

.PHONY: docs-calls
docs-calls: $(STAMP) ## make docs/recorder-calls.md from the list of intercepted functions
	@$(BIN)/python -m leakline.recorder.calls_page > docs/recorder-calls.md

format: $(STAMP) ## format the Python sources
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

clean: ## remove what the verbs made
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@for folder in $(NATIVE); do $(MAKE) --no-print-directory --silent -C $$folder clean || exit; done

.PHONY: hold-verdict
hold-verdict: $(STAMP) ## how often leakline's verdict is wrong, over 26 000 generated series (2 min)
	@$(BIN)/python packages/leakline/tests/test_growth_rates.py 1000

.PHONY: hold-lsof
hold-lsof: $(STAMP) ## 19 500 descriptors classified in at most a third of lsof's time
	@$(BIN)/python -m bench.lsof

.PHONY: hold-ledger
hold-ledger: $(STAMP) native ## 2000 forks under load: every child closes exactly what it inherited
	@$(BIN)/python packages/datacenter/tests/sockets/ledger_programs/fork_under_load.py 2000

HOLD := packages/datacenter/tests/hold
.PHONY: hold-outages hold-vanish hold-exit hold-fuzz
hold-outages: $(STAMP) ## 200 outages of the service and 20 of the broker: nothing leaks or blocks, calls are answered again within 2 s (6 min)
	@$(BIN)/python $(HOLD)/outages.py

hold-vanish: $(STAMP) ## instances that vanish without a FIN (SIGSTOP; network cut, as root) leave in 3 heartbeats and come back (2 min)
	@$(BIN)/python $(HOLD)/vanish.py stopped && $(BIN)/python $(HOLD)/vanish.py cut

hold-exit: $(STAMP) native ## 2 000 ends of processes, in every way, at any moment, whoever holds what: in order, within a second (12 min)
	@$(BIN)/python $(HOLD)/exits.py

hold-fuzz: $(STAMP) ## 100 000 random frames at each endpoint, half-open handshakes, slow readers, vanishing peers: nothing leaks or dies (1 min)
	@$(BIN)/python $(HOLD)/fuzz.py

.PHONY: hold-kills hold-rolling
hold-kills: $(STAMP) native ## 500 kill -9 of instance, broker or both under load through both routes: each call ends once, none is executed twice (9 min)
	@$(BIN)/python $(HOLD)/kills.py

hold-rolling: $(STAMP) native ## rolling restarts of 3 instances under full load through both routes: no failed call, no lost call (2 min)
	@$(BIN)/python $(HOLD)/rolling.py

.PHONY: hold-relays
hold-relays: $(STAMP) native ## 16 threads make and end relays of 50 names under traffic: no deadlock, no reply lost, nothing left (5 min)
	@$(BIN)/python -W error packages/datacenter/tests/broker/hold_relays.py 300

.PHONY: hold-limit
hold-limit: $(STAMP) native ## 5 000 peers at a broker, a service and a relay with 256 descriptors: no spin, open connections served as ever (2 min)
	@$(BIN)/python $(HOLD)/limit.py

.PHONY: hold-forks
hold-forks: $(STAMP) native ## 500 forks under load, half of them in outages, in every way: no abort, no hang, nothing kept (5 min)
	@$(BIN)/python $(HOLD)/forks.py

.PHONY: hold-python-frames
hold-python-frames: $(STAMP) ## Python frames in each interpreter here: short-lived code objects, signal handlers, ends: none wrong, no fault (5 min)
	@$(BIN)/python packages/leakline/tests/recorder/target/hold_python_frames.py

.PHONY: torture
torture: $(STAMP) native ## fail every single descriptor-creating call of start, serve, call, relay, reconnect and shutdown, with EMFILE, ENFILE, ENOMEM, once and for good (10 min)
	@$(BIN)/python packages/datacenter/tests/torture/torture.py

.PHONY: bench-recorder
bench-recorder: $(BENCH_STAMP) native ## what the recorder costs, beside valgrind, strace, memray and bpftrace, interleaved (10 min)
	@$(BIN)/python -m bench.recorder

.PHONY: hold-unwind
hold-unwind: ## native stacks: 93 312 call paths, signals at random points, 16 threads, corrupt stacks, each walk compared with libgcc (3 min)
	@$(MAKE) --no-print-directory --silent -C packages/leakline/src/leakline/recorder/target unwind-hold

.PHONY: hold-wheel hold-aarch64 cross-aarch64
hold-wheel: $(STAMP) ## leakline itself from the wheel on each Python here since 3.10, with its dependencies installed (1 min)
	@$(BIN)/python packages/leakline/tests/hold_wheel.py

cross-aarch64: ## build both libraries for aarch64, by Debian's gcc-aarch64-linux-gnu, in recorder/*/build/aarch64
	@$(MAKE) --no-print-directory --silent -C packages/leakline/src/leakline/recorder/native CC=aarch64-linux-gnu-gcc LIBRARY=build/aarch64/libleakline.so
	@$(MAKE) --no-print-directory --silent -C packages/leakline/src/leakline/recorder/target CC=aarch64-linux-gnu-gcc LIBRARY=build/aarch64/libleakline_recorder.so

hold-aarch64: $(STAMP) ## the recorder built for aarch64, in programs that qemu-user runs: each descriptor by its function and line (1 min)
	@$(BIN)/python packages/leakline/tests/recorder/target/hold_aarch64.py

.PHONY: hold-loader
hold-loader: $(STAMP) native ## 2 000 forks while another thread is inside the loader: no recorded child hangs, each origin has its library (1 min)
	@LEAKLINE_HOLD_FORKS=2000 $(BIN)/pytest -q --timeout 2400 packages/leakline/tests/recorder/target/test_loader_forks.py

.PHONY: hold-recording
hold-recording: $(STAMP) native ## 16 threads write a recording that is read all the while, and 100 writers are killed: nothing torn, all counts right (3 min)
	@LEAKLINE_HOLD_ROUNDS=20 $(BIN)/pytest -q --timeout 1200 packages/leakline/tests/recorder/target/test_recording_file.py

.PHONY: hold-attach
hold-attach: $(STAMP) native ## 400 attachments to a busy Python server and to redis-server under load: no crash, no wrong answer, nothing kept, threads stand still for milliseconds (1 min)
	@$(BIN)/python packages/leakline/tests/recorder/attach/hold_attach.py 400

.PHONY: hold-prefork
hold-prefork: $(STAMP) native ## 100 kill -9 of each worker and of the watcher, 25 of the fork server, under load: the service goes on, no worker ever has the registry's connection, nothing grows (5 min)
	@$(BIN)/python $(HOLD)/prefork_kills.py

.PHONY: bench-prefork
bench-prefork: $(STAMP) ## two workers beside one, on two processors, calls that compute: at least 1.7 times (1 min)
	@$(BIN)/python -m bench.prefork

.PHONY: hold-plugin
hold-plugin: $(STAMP) native ## what `pytest --leakline` costs on real suites, each beside a plain run on one processor: 5 % of its processor time at most (25 min)
	@$(BIN)/python packages/leakline/tests/hold/plugin_overhead.py

.PHONY: hold-recorder
hold-recorder: $(STAMP) native ## redis, nginx, PostgreSQL and CPython's tests under `leakline run`: same answers, no invented finding, nothing left (10 min)
	@$(BIN)/python packages/leakline/tests/hold/recorded_programs.py

.PHONY: hold-holders
hold-holders: $(STAMP) ## `leakline holders` on a machine with 20 000 descriptors, beside lsof and fuser, interleaved (1 min)
	@$(BIN)/python -m bench.holders

.PHONY: hold-page
hold-page: $(STAMP) native ## the HTML report in Chromium: light, dark, phone, paper: loads nothing, fits, readable, zooms (1 min; installs chromium)
	@$(BIN)/python packages/leakline/tests/reports/hold_page.py

.PHONY: hold-healthy
hold-healthy: $(STAMP) native ## 27 healthy programs under load for 60 s each, no false alarm: databases, web servers, brokers, VMs, a browser (8 min; installs them)
	@$(BIN)/python packages/leakline/tests/hold/healthy.py

.PHONY: hold-cost
hold-cost: $(STAMP) ## what `leakline PID` costs at 10 000 descriptors: itself (at most 2 % of a core), and the process (nothing) (4 min)
	@$(BIN)/python -m bench.observing

.PHONY: hold-zookeeper hold-scale hold-hosts
hold-zookeeper: $(STAMP) native ## brokers over 3 ZooKeeper servers: leader killed, all stopped, brokers and instances killed, stopped, cut off (as root), clocks that jump; the history is checked (5 min)
	@$(BIN)/python $(HOLD)/zookeeper_faults.py

hold-scale: $(STAMP) native ## 10 000 hosts and 100 000 instances, by simulation: what each step costs, what is full first (1 min)
	@$(BIN)/python packages/datacenter/tests/registry/hold_scale.py

hold-hosts: $(STAMP) native ## as root: services, clients and broker on hosts of their own, cut off and joined again, in good and bad weather (3 min)
	@$(BIN)/python $(HOLD)/hosts.py

.PHONY: hold-gateway hold-firewall bench-gateway
hold-gateway: $(STAMP) native ## a backend that comes and goes for 10 minutes, then 100 kill -9 of each process of the gateway, both balances: nothing grows (50 min)
	@$(BIN)/python $(HOLD)/gateway.py

hold-firewall: $(STAMP) native ## ZooKeeper and backends behind a firewall that drops, for minutes, then back; nutcracker beside it, as root (8 min)
	@$(BIN)/python $(HOLD)/firewall.py

bench-gateway: $(STAMP) native ## `datacenter proxy` beside nutcracker (twemproxy) and Redis itself, with one worker and two, interleaved: at least 0.5 times its requests (3 min)
	@$(BIN)/python -m bench.gateway

# umbra: one non-recursive make, one fragment (module.mk) per folder. `make help` lists the targets.
# B=dir      where everything built goes (default build)
# SAN=list   sanitizers, e.g. SAN=address,undefined or SAN=thread (builds in build-<list>)
# V=1        show the commands

.DEFAULT_GOAL := all
SHELL   := /bin/bash
CC      ?= gcc
PREFIX  ?= /usr/local
comma   := ,
SAN     ?=
B       ?= build$(if $(SAN),-$(subst $(comma),-,$(SAN)))
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

WARN    := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Wno-unused-parameter
CFLAGS  ?= -O2 -g
UCFLAGS := -std=gnu17 $(WARN) $(CFLAGS) -fno-strict-aliasing -pthread -D_GNU_SOURCE -I. $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer)
ULDFLAGS := -pthread $(if $(SAN),-fsanitize=$(SAN)) $(LDFLAGS)

Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-7s %s\n' '$(1)' '$(patsubst $(B)/%,%,$@)';)

# objects of every .c and .S of a folder: $(call objs,mmu)
objs = $(patsubst %,$(B)/%.o,$(basename $(sort $(wildcard $(1)/*.c $(1)/*.S))))

ALL :=            # what plain `make` builds; fragments add to it
include $(wildcard */module.mk tests/*/module.mk)

all: $(ALL)                     ## build everything


$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(UCFLAGS) $(EXTRA_$(subst /,_,$*)) -MMD -MP -c -o $@ $<
$(B)/%.o: %.S
	@mkdir -p $(@D)
	$(call say,AS)$(CC) $(UCFLAGS) -MMD -MP -c -o $@ $<
$(B)/%.a:
	@mkdir -p $(@D)
	$(call say,AR)rm -f $@ && ar rcs $@ $^

-include $(shell find $(B) -name '*.d' 2>/dev/null)

# ---- using it: these install what is missing first, so they build in a make of their own ----------------------------

UMBRA_CACHE ?= cache
INITRD   := $(B)/initrd.cpio.gz
# umbra's arguments; $(1): build folder, $(2): cache
run_args = run -k $(2)/vmlinuz -i $(1)/initrd.cpio.gz -p "umbra.run=$(or $(RUN),selftest)" --stats $(1)/run.json \
	$(if $(filter shell,$(RUN)),,--expect '^UMBRA-RESULT ok')
export UMBRA_CACHE := $(abspath $(UMBRA_CACHE))
export UMBRA_BUILD := $(abspath $(B))

deps:                           ## install the Debian packages that are missing (build, run, test)
	$(Q)scripts/deps --without perf

kernel:                         ## fetch Debian's cloud kernel into cache/
	$(Q)scripts/fetch-kernel

initrd: $(INITRD)               ## build the guest's initrd
$(INITRD): $(WORKLOAD) tests/workload/init scripts/guest-initrd
	$(call say,INITRD)scripts/guest-initrd -o $@ $(WORKLOAD)

# 77: this host cannot run guests. Then an emulated machine can.
run:                            ## boot Debian's kernel and print the counters; RUN=forks=100, micro, shell ...
	$(Q)scripts/deps build run
	$(Q)$(MAKE) -s all initrd kernel
	$(Q)status=0; rm -f $(B)/run.json; $(B)/umbra $(call run_args,$(B),$(UMBRA_CACHE)) || status=$$?; \
	if [ $$status = 77 ]; then \
		echo 'run: no usable /dev/kvm here; the same again in an emulated machine (QEMU TCG), much slower'; \
		scripts/deps test && status=0 && \
		scripts/testbed --get build/run.json:$(B)/run.json -- build/umbra $(call run_args,build,cache) || status=$$?; \
	fi; \
	[ ! -s $(B)/run.json ] || echo 'counters: $(B)/run.json'; exit $$status

unit-bins: $(UNIT_TESTS)        ## build the unit tests

stress: all guests             ## all vCPUs against each other for an hour; STRESS_SECONDS=N
	STRESS_ONLY=1 STRESS_SECONDS=$(or $(STRESS_SECONDS),3600) UMBRA_BUILD=$(abspath $(B)) bash tests/e2e/smp.sh
numa-testbed: all guests initrd kernel	## moves between 2 and 4 nodes, npt=1 and npt=0, full and vanishing nodes: an hour
	NUMA_LONG=1 UMBRA_BUILD=$(abspath $(B)) bash tests/e2e/numa-moves.sh
.PHONY: stress numa-testbed

stress-numa: all guests initrd kernel ## frames moved and copied at random, in every mode; about ten minutes
	MOVES_LONG=1 MOVES_SECONDS=$(or $(MOVES_SECONDS),100) UMBRA_BUILD=$(abspath $(B)) bash tests/e2e/moves.sh
.PHONY: stress-numa

check:                          ## every test there is; STEPS="unit boot" picks some
	$(Q)scripts/deps --without perf
	$(Q)$(MAKE) -s all initrd kernel
	$(Q)B=$(B) scripts/check $(STEPS)

bindir := $(DESTDIR)$(PREFIX)/bin
mandir := $(DESTDIR)$(PREFIX)/share/man/man1
docdir := $(DESTDIR)$(PREFIX)/share/doc/umbra

install: all                    ## install command, man page and documents; PREFIX=/usr/local DESTDIR=
	$(Q)install -D -m 755 $(B)/umbra $(bindir)/umbra
	$(Q)install -D -m 644 -t $(mandir) $(MAN1)
	$(Q)install -D -m 644 -t $(docdir) $(DOCS)

uninstall:                      ## remove what install installed
	$(Q)rm -f $(bindir)/umbra $(addprefix $(mandir)/,$(notdir $(MAN1))) $(addprefix $(docdir)/,$(notdir $(DOCS)))
	$(Q)rmdir --ignore-fail-on-non-empty $(docdir) 2>/dev/null || true

clean:                          ## remove what was built (keeps cache/)
	$(Q)rm -rf build build-*

help:                           ## this list
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | sort | expand -t 22
	@echo; echo '  variables: V=1 (show commands)  SAN=address,undefined | thread  B=dir  PREFIX=  DESTDIR='

.PHONY: all deps kernel initrd run unit-bins check install uninstall clean help

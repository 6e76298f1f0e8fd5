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

clean:                          ## remove what was built (keeps cache/)
	$(Q)rm -rf build build-*

help:                           ## this list
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | sort | expand -t 22
	@echo; echo '  variables: V=1 (show commands)  SAN=address,undefined | thread  B=dir  PREFIX=  DESTDIR='

.PHONY: all clean help

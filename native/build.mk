# Builds the C core and what is made from it. One place for the flags: setup.py, the native tests, the sanitizers
# and the fuzzers all come here.
#   make -f native/build.mk OUT=build/release lib
#   make -f native/build.mk OUT=build/asan SAN=address,undefined tests
#   make -f native/build.mk OUT=build/fuzz CC=clang SAN=fuzzer-no-link,address,undefined fuzz
OUT ?= build/release
CC ?= gcc
OPT ?= -O2 -g
SAN ?=
ROOMS := base wire codec storage reactor broker engine
# A C file of the generated tables is code like any other.
SOURCES := $(sort $(wildcard $(addprefix native/,$(addsuffix /*.c,$(ROOMS)))))
OBJECTS := $(SOURCES:%.c=$(OUT)/obj/%.o)
LIB := $(OUT)/libpenstock_core.a
TEST_SOURCES := $(sort $(wildcard tests/native/test_*.c))
TESTS := $(TEST_SOURCES:tests/native/%.c=$(OUT)/tests/%)
FUZZ_SOURCES := $(sort $(wildcard native/fuzz/fuzz_*.c))
FUZZERS := $(FUZZ_SOURCES:native/fuzz/%.c=$(OUT)/fuzz/%)

PACKAGES := liblz4 libzstd snappy zlib
PACKAGE_CFLAGS := $(shell pkg-config --cflags $(PACKAGES) 2>/dev/null)
PACKAGE_LIBS := $(shell pkg-config --libs $(PACKAGES) 2>/dev/null)

WARN := -Wall -Wextra -Wconversion -Wshadow -Werror -Werror=switch-enum
SAN_FLAGS := $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer)
CFLAGS_ALL := -std=c11 -D_GNU_SOURCE $(OPT) $(WARN) -fPIC -fvisibility=hidden -fno-strict-aliasing \
	-Inative -Inative/include $(PACKAGE_CFLAGS) $(SAN_FLAGS) $(CFLAGS)
LIBS := $(PACKAGE_LIBS) -lpthread -lm

.PHONY: lib tests fuzz bench counts
counts: $(OUT)/counts/inprocess
bench: $(OUT)/bench/loadgen $(OUT)/bench/floor
lib: $(LIB)
tests: $(TESTS)
fuzz: $(FUZZERS)

$(LIB): $(OBJECTS)
	@rm -f $@
	@ar rcs $@ $^
	@echo "built $@"

$(OUT)/obj/%.o: %.c
	@mkdir -p $(@D)
	@echo "  cc $<"
	@$(CC) $(CFLAGS_ALL) -MMD -MP -c $< -o $@

$(OUT)/tests/%: tests/native/%.c $(LIB)
	@mkdir -p $(@D)
	@echo "  cc $<"
	@$(CC) $(CFLAGS_ALL) -Wno-conversion -Itests/native -MMD -MP -MF $@.d $< -o $@ $(LIB) $(LIBS)

$(OUT)/fuzz/%: native/fuzz/%.c $(LIB)
	@mkdir -p $(@D)
	@echo "  cc $<"
	@$(CC) $(CFLAGS_ALL) -fsanitize=fuzzer -MMD -MP -MF $@.d $< -o $@ $(LIB) $(LIBS)

$(OUT)/bench/%: bench/%.c $(wildcard bench/*.h) $(LIB)
	@mkdir -p $(@D)
	@echo "  cc $<"
	@$(CC) $(CFLAGS_ALL) -I. -Wno-conversion $< -o $@ $(LIB) $(LIBS)

$(OUT)/counts/%: tests/counts/%.c $(LIB)
	@mkdir -p $(@D)
	@echo "  cc $<"
	@$(CC) $(CFLAGS_ALL) -Wno-conversion $< -o $@ $(LIB) $(LIBS)

-include $(OBJECTS:.o=.d) $(TESTS:=.d) $(FUZZERS:=.d)

# Tests of the native walk (unwind*.c), each walk compared with libgcc's: `make unwind-tests`; longer: `make unwind-hold`.
UNWIND_TESTS := ../../../../tests/recorder/target/unwind
UNWIND_BUILD := build/unwind
UNWIND_SOURCES := $(sort $(wildcard unwind*.c))
UNWIND_TEST_SOURCES := $(sort $(wildcard $(UNWIND_TESTS)/test_*.c)) $(UNWIND_TESTS)/unwind_tests.c
UNWIND_INPUTS := $(UNWIND_SOURCES) $(wildcard *.h $(UNWIND_TESTS)/*.[ch]) unwind_tests.mk
UNWIND_FLAGS := $(WARNINGS) -g -fno-optimize-sibling-calls -fno-omit-frame-pointer -DLEAKLINE_UNWIND_CHECK -I. -pthread
UNWIND_SANITIZE := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all
UNWIND_VICTIMS := $(UNWIND_BUILD)/libsmall_frame.so $(UNWIND_BUILD)/liblarge_frame.so

.PHONY: unwind-tests unwind-hold
sanitized: unwind-tests
unwind-tests: $(addprefix $(UNWIND_BUILD)/,tests tests_small_table tests_old_loader tests_races paths) $(UNWIND_VICTIMS)
	cd $(UNWIND_BUILD) && ./tests && ./tests_small_table && ./tests_old_loader && ./tests_races && ./paths 20

unwind-hold: unwind-tests unwind-speed
	cd $(UNWIND_BUILD) && ./paths && ./tests 20 && ./tests_small_table 20 && ./tests_old_loader 20 && ./tests_races 10

.PHONY: unwind-speed
unwind-speed: $(UNWIND_BUILD)/speed
	$(UNWIND_BUILD)/speed

$(UNWIND_BUILD)/speed: $(UNWIND_INPUTS)
	@mkdir -p $(UNWIND_BUILD)
	$(CC) $(filter-out -DLEAKLINE_UNWIND_CHECK,$(UNWIND_FLAGS)) $(CFLAGS) -o $@ $(UNWIND_SOURCES) $(UNWIND_TESTS)/unwind_speed.c

$(UNWIND_BUILD)/libsmall_frame.so: $(UNWIND_TESTS)/victim.c unwind_tests.mk
	@mkdir -p $(UNWIND_BUILD)
	$(CC) -O1 -shared -fPIC -DFRAME=1000 -o $@ $<

$(UNWIND_BUILD)/liblarge_frame.so: $(UNWIND_TESTS)/victim.c unwind_tests.mk
	@mkdir -p $(UNWIND_BUILD)
	$(CC) -O1 -shared -fPIC -DFRAME=2000 -o $@ $<

$(UNWIND_BUILD)/tests: $(UNWIND_INPUTS)
	@mkdir -p $(UNWIND_BUILD)
	$(CC) $(UNWIND_FLAGS) $(UNWIND_SANITIZE) -o $@ $(UNWIND_SOURCES) $(UNWIND_TEST_SOURCES) -lm

# The same with a table that is full after a few rules, and renewed after a few loads of libraries.
$(UNWIND_BUILD)/tests_small_table: $(UNWIND_INPUTS)
	@mkdir -p $(UNWIND_BUILD)
	$(CC) $(UNWIND_FLAGS) -O2 -DLEAKLINE_CACHE_BITS=2 -DLEAKLINE_CACHE_TAGS=8 -o $@ $(UNWIND_SOURCES) $(UNWIND_TEST_SOURCES) -lm

# The same without _dl_find_object (before glibc 2.35).
$(UNWIND_BUILD)/tests_old_loader: $(UNWIND_INPUTS)
	@mkdir -p $(UNWIND_BUILD)
	$(CC) $(UNWIND_FLAGS) -O2 -DLEAKLINE_OLD_LOADER -o $@ $(UNWIND_SOURCES) $(UNWIND_TEST_SOURCES) -lm

$(UNWIND_BUILD)/tests_races: $(UNWIND_INPUTS)
	@mkdir -p $(UNWIND_BUILD)
	$(CC) $(UNWIND_FLAGS) -O1 -fsanitize=thread -DONLY_THREADS -DLEAKLINE_CACHE_BITS=3 -DLEAKLINE_CACHE_TAGS=200 -o $@ $(UNWIND_SOURCES) $(UNWIND_TESTS)/test_threads.c $(UNWIND_TESTS)/test_table.c $(UNWIND_TESTS)/unwind_tests.c

# --- call paths through code built in different ways
UNWIND_OPTIONS_0 := -O0
UNWIND_OPTIONS_1 := -O1 -fno-omit-frame-pointer
UNWIND_OPTIONS_2 := -O2 -fomit-frame-pointer
UNWIND_OPTIONS_3 := -O3
UNWIND_OPTIONS_4 := -Os -fomit-frame-pointer
UNWIND_OPTIONS_5 := -O2
ifeq ($(shell $(CC) -dumpmachine | cut -d- -f1),x86_64)
UNWIND_OPTIONS_3 += -mstackrealign
UNWIND_OPTIONS_5 += -fcf-protection -mno-red-zone -maccumulate-outgoing-args
else
UNWIND_OPTIONS_5 += -mbranch-protection=standard
endif

$(UNWIND_BUILD)/path_%.o: $(UNWIND_TESTS)/path.c unwind_tests.mk
	@mkdir -p $(UNWIND_BUILD)
	$(CC) -g $(UNWIND_OPTIONS_$*) -Wno-psabi -DVARIANT=$* -c -o $@ $<

$(UNWIND_BUILD)/paths: $(UNWIND_INPUTS) $(foreach variant,0 1 2 3 4 5,$(UNWIND_BUILD)/path_$(variant).o)
	$(CC) $(UNWIND_FLAGS) -O2 -o $@ $(UNWIND_SOURCES) $(UNWIND_TESTS)/unwind_paths.c $(filter %.o,$^)

# --- for LD_PRELOAD into real programs, with UNWIND_STRESS=<file that gets the counts>
$(UNWIND_BUILD)/libunwind_stress.so: $(UNWIND_INPUTS)
	@mkdir -p $(UNWIND_BUILD)
	$(CC) $(UNWIND_FLAGS) $(CODE) $(CFLAGS) -static-libgcc -shared -o $@ $(UNWIND_SOURCES) $(UNWIND_TESTS)/unwind_stress.c

# weir - PGXS build.
#
#   make, make install     for those who have a server (PG_CONFIG=... picks one)
#   make demo, make test   do everything on a bare machine, see test/README.md
#
# PGXS reserves the target "check", hence "test".

MODULE_big = weir
EXTENSION = weir
WEIR_VERSION = 0.1

OBJS = $(sort $(patsubst %.c,%.o,$(wildcard src/*.c src/*/*.c)))
SQL_PARTS = $(sort $(wildcard sql/[0-9][0-9]-*.sql))
DATA_built = sql/weir--$(WEIR_VERSION).sql
DATA = $(filter-out $(DATA_built),$(wildcard sql/weir--*.sql))

PG_CPPFLAGS = -I$(srcdir)/include -DWEIR_VERSION='"$(WEIR_VERSION)"'
# -MMD: every object knows the headers it was built from.  WERROR is set by
# the test scripts: a warning of tomorrow's compiler must not stop a user.
PG_CFLAGS = -Wextra -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers -Wno-declaration-after-statement \
	-MMD -MP $(if $(WERROR),-Werror)
SHLIB_LINK = -lcurl -lcjson -lexpat -lhiredis -lssl -lcrypto

# For "make installcheck" against a running server that preloads weir.
# "make test" runs the same lists in a private cluster.
REGRESS = $(sort $(patsubst test/sql/%.sql,%,$(wildcard test/sql/*.sql)))
REGRESS_OPTS = --inputdir=test --outputdir=. --load-extension=weir
ISOLATION = $(sort $(patsubst test/specs/%.spec,%,$(wildcard test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test --outputdir=. --load-extension=weir
TAP_TESTS = 1
PROVE_TESTS = test/t/*.pl

DEPS = $(OBJS:.o=.d)
EXTRA_CLEAN = $(DEPS) results regression.diffs regression.out

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
ifneq ($(PGXS),)
include $(PGXS)
# Every test has a database of its own.
pg_regress_installcheck = test/lib/regress_each.sh $(top_builddir)/src/test/regress/pg_regress --bindir='$(bindir)'
pg_isolation_regress_installcheck = test/lib/regress_each.sh $(top_builddir)/src/test/isolation/pg_isolation_regress \
	--bindir='$(bindir)'
PG_PROVE_FLAGS += -I $(CURDIR)/test/lib
-include $(DEPS)
else
all install clean:
	@echo "$(PG_CONFIG) not found: install the server's development files" \
		"(postgresql-server-dev-NN), or run \"make test\" or \"make demo\"," \
		"which install what they need" >&2; exit 1
endif

# A part that fails to be read must not leave half a script behind.
sql/weir--$(WEIR_VERSION).sql: $(SQL_PARTS)
	cat $^ > $@.tmp && mv $@.tmp $@

# A change of the version or the flags rebuilds everything.
$(OBJS): Makefile

# The scripts find everything themselves; they must not inherit our flags.
run = env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL -u MAKEOVERRIDES

demo:
	@$(run) CLOUD='$(CLOUD)' test/demo/demo.sh

demo-stop:
	@$(run) test/demo/demo.sh --stop

test:
	@$(run) PART='$(PART)' TESTS='$(TESTS)' test/run.sh

test-unit:
	@$(run) PART=unit TESTS='$(TESTS)' test/run.sh

test-asan:
	@$(run) PART='$(PART)' TESTS='$(TESTS)' test/run.sh --asan

# (make itself has a variable AS, the assembler)
test-suite:
	@$(run) SUITE='$(SUITE)' WITH='$(WITH)' AS='$(if $(filter default,$(origin AS)),,$(AS))' COMMANDS='$(COMMANDS)' test/chroot.sh

lint:
	@$(run) test/lint.sh

# What weir must hold, then weir beside others on the same machine; with TESTS only some of the former.
bench:
	@$(MAKE) --no-print-directory bench-bars; bars=$$?; [ -n '$(TESTS)' ] || $(MAKE) --no-print-directory bench-peers || exit; exit $$bars

bench-bars:
	@$(run) TESTS='$(TESTS)' RECORD='$(RECORD)' HELD='$(HELD)' test/bench/run $(if $(FULL),--full) $(if $(SOAK),--soak)

bench-peers:
	@$(run) TESTS='$(TESTS)' RECORD='$(RECORD)' HELD='$(HELD)' test/bench/peers/run $(if $(SOAK),--soak)

soak:
	@$(run) PART='$(PART)' KILLS='$(KILLS)' CUTS='$(CUTS)' CYCLES='$(CYCLES)' MINUTES='$(MINUTES)' SEED='$(SEED)' \
		REQUESTS='$(REQUESTS)' ITEMS='$(ITEMS)' JOBS='$(JOBS)' ONLY='$(ONLY)' GO_ON='$(GO_ON)' test/chaos/run

# (SECONDS is bash's own)
fuzz:
	@$(run) FUZZ_SECONDS='$(SECONDS)' ONLY='$(ONLY)' FOUND='$(FOUND)' CORPUS='$(CORPUS)' test/fuzz/run

model:
	@$(run) ONLY='$(ONLY)' test/model/run

mutants:
	@$(run) ONLY='$(ONLY)' JOBS='$(JOBS)' GREEN='$(GREEN)' test/mutants/run

.PHONY: demo demo-stop test test-unit test-asan test-suite lint bench bench-bars bench-peers soak fuzz model mutants

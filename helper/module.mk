# helper/: the thread that prebuilds shadow entries, and its heuristics, a file each.
HELPER_LIB := $(B)/libumbra-helper.a
$(HELPER_LIB): $(call objs,helper)
ALL += $(HELPER_LIB)

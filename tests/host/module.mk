# tests/host: programs that ask this host's KVM how it behaves; no guest kernel, nothing of umbra linked in.
KICK_PROBE := $(B)/kick-probe
$(KICK_PROBE): $(call objs,tests/host)
	$(call say,LD)$(CC) -o $@ $^ $(ULDFLAGS)
ALL += $(KICK_PROBE)

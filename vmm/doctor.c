/*
 * doctor.c - what this host can do, for people: a line per capability, and the fix where one is needed.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/kvm.h>

#include "vmm/host.h"
#include "vmm/vmm.h"

enum level { OK, WARN, FAIL };

struct doctor {
	FILE *to;
	struct vmm_host host;
	int kvm_fd;
	unsigned warnings, failures;
};

/* fix: what to do, NULL if there is nothing to do. */
__attribute__((format(printf, 5, 6)))
static void report(struct doctor *d, enum level level, const char *what, const char *fix, const char *fmt, ...)
{
	static const char *const names[] = { "ok", "warn", "fail" };
	va_list ap;

	d->warnings += level == WARN;
	d->failures += level == FAIL;
	fprintf(d->to, "%-4s  %-20s  ", names[level], what);
	va_start(ap, fmt);
	vfprintf(d->to, fmt, ap);
	va_end(ap);
	fputc('\n', d->to);
	if (fix)
		fprintf(d->to, "      %-20s  -> %s\n", "", fix);
}

/* ---- /dev/kvm --------------------------------------------------------------------------------------------------- */

static const char *fix_missing_kvm(void)
{
	if (host_cpu_flag("vmx"))
		return "modprobe kvm_intel; if that fails, enable VT-x in the firmware";
	if (host_cpu_flag("svm"))
		return "modprobe kvm_amd; if that fails, enable SVM in the firmware";
	if (host_cpu_flag("hypervisor"))
		return "virtual itself, without VT-x or SVM: let its host enable them; or use scripts/testbed";
	return "no VT-x or SVM to be seen: enable it in the firmware; or use scripts/testbed";
}

static void report_no_access(struct doctor *d)
{
	struct stat st;
	struct group *group = stat("/dev/kvm", &st) ? NULL : getgrgid(st.st_gid);
	char fix[160];

	if (group && group->gr_gid && st.st_mode & S_IWGRP)
		snprintf(fix, sizeof fix, "sudo usermod -aG %s $USER, then log in again", group->gr_name);
	else
		snprintf(fix, sizeof fix, "run as root, or: sudo setfacl -m u:$USER:rw /dev/kvm");
	report(d, FAIL, "/dev/kvm", fix, "this user may not open it");
}

static void check_device(struct doctor *d)
{
	d->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (d->kvm_fd >= 0) {
		if (d->host.api_version == KVM_API_VERSION)
			report(d, OK, "/dev/kvm", NULL, "opens, API version %d", d->host.api_version);
		else
			report(d, FAIL, "/dev/kvm", NULL, "opens, but is not the KVM we know: API version %d, not %d",
			       d->host.api_version, KVM_API_VERSION);
		return;
	}
	switch (errno) {
	case EACCES:
	case EPERM:
		report_no_access(d);
		break;
	case ENOENT:
	case ENODEV:
	case ENXIO:
		report(d, FAIL, "/dev/kvm", fix_missing_kvm(), "there is none (%s)", strerror(errno));
		break;
	default:
		report(d, FAIL, "/dev/kvm", NULL, "cannot be opened: %s", strerror(errno));
	}
}

static void check_kind(struct doctor *d)
{
	const char *kind = vmm_host_kind_name(d->host.kind), *level = d->host.kind == VMM_HOST_SVM ? "NPT" : "EPT";

	if (d->host.kind == VMM_HOST_UNKNOWN)
		report(d, WARN, "kind of KVM", NULL, "not known: none of kvm_intel, kvm_amd, kvm_pvm is in use here");
	else if (d->host.kind == VMM_HOST_PVM)
		report(d, OK, "kind of KVM", NULL, "PVM: no VT-x or SVM, KVM shadows our shadow tables");
	else if (d->host.second_level == 1)
		report(d, OK, "kind of KVM", NULL, "%s with %s: the processor walks our shadow tables itself", kind,
		       level);
	else if (d->host.second_level == 0)
		report(d, OK, "kind of KVM", NULL, "%s, %s off: KVM shadows our shadow tables", kind, level);
	else
		report(d, WARN, "kind of KVM", NULL, "%s; whether %s is on cannot be told", kind, level);
}

static void check_ept(struct doctor *d)
{
	if (d->host.kvm_error)
		return;
	if (d->host.second_level == 1 && d->host.stats_fd)
		report(d, OK, "EPT violations", NULL, "measured with --mmu=nested, modelled in shadow mode");
	else
		report(d, OK, "EPT violations", NULL, "modelled only: %s", d->host.second_level == 1 ?
		       "this KVM has no binary statistics (Linux 5.14 has)" : "there is no second level here to measure");
}

/* What umbra asks of KVM. `need`: bits or number that the answer must have. */
static const struct capability {
	int number;
	enum level without;
	unsigned bits, least;
	const char *name;
	const char *lost;		/* what is not possible without it */
} capabilities[] = {
	{ KVM_CAP_USER_MEMORY, FAIL, 0, 1, "user memory", "guest memory cannot be given to KVM" },
	{ KVM_CAP_NR_MEMSLOTS, FAIL, 0, 2, "memory slots", "guest and monitor need one each" },
	{ KVM_CAP_SYNC_MMU, FAIL, 0, 1, "sync MMU", "KVM would not follow changes of this process's memory" },
	{ KVM_CAP_SYNC_REGS, FAIL, KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS, 1, "sync regs",
	  "registers cannot be exchanged through the run page" },
	{ KVM_CAP_IMMEDIATE_EXIT, FAIL, 0, 1, "immediate exit", "a wake-up could be lost" },
	{ KVM_CAP_EXT_CPUID, FAIL, 0, 1, "CPUID", "the guest's CPUID cannot be set" },
	{ KVM_CAP_XCRS, WARN, 0, 1, "XCR0", "the guest has no AVX" },
	{ KVM_CAP_DEBUGREGS, WARN, 0, 1, "debug registers", "no hardware breakpoints inside the guest" },
	{ KVM_CAP_BINARY_STATS_FD, WARN, 0, 1, "KVM statistics", "KVM's own counters cannot be shown beside ours" },
};

static void check_capabilities(struct doctor *d)
{
	for (unsigned i = 0; i < sizeof capabilities / sizeof *capabilities; i++) {
		const struct capability *c = &capabilities[i];
		int have = ioctl(d->kvm_fd, KVM_CHECK_EXTENSION, c->number);

		if (have < 0 || (unsigned)have < c->least || (have & c->bits) != c->bits)
			report(d, c->without, c->name, "a newer kernel", "missing: %s", c->lost);
		else if (c->bits || c->least > 1)
			report(d, OK, c->name, NULL, c->bits ? "%#x" : "%d", have);
		else
			report(d, OK, c->name, NULL, "there");
	}
}

static const char *fix_trial(int error)
{
	switch (error) {
	case -EBUSY:
		return "another hypervisor (VirtualBox, VMware ...) holds the processor's virtualization: stop it";
	case -ENOMEM:
		return "free memory, or raise the limits of this cgroup";
	default:
		return NULL;
	}
}

static void check_trial(struct doctor *d)
{
	struct host_trial t;

	host_try_vm(d->kvm_fd, &t);
	if (t.vm)
		report(d, FAIL, "make a VM", fix_trial(t.vm), "refused: %s", strerror(-t.vm));
	else if (t.slot)
		report(d, FAIL, "make a VM", fix_trial(t.slot), "its memory is refused: %s", strerror(-t.slot));
	else if (t.vcpu)
		report(d, FAIL, "make a VM", fix_trial(t.vcpu), "its vCPU is refused: %s", strerror(-t.vcpu));
	else
		report(d, OK, "make a VM", NULL, "made one with memory and a vCPU; up to %d vCPUs each",
		       d->host.max_vcpus);
}

/* ---- the machine ------------------------------------------------------------------------------------------------ */

static void check_cpus(struct doctor *d)
{
	const struct vmm_host *h = &d->host;

	report(d, h->cpus > 1 ? OK : WARN, "processors", NULL, "%u, %u NUMA node%s: %s%s", h->cpus, h->nodes,
	       h->nodes == 1 ? "" : "s", h->cpu, h->cpus > 1 ? "" : "; the guest and umbra's threads share one");
	if (host_cpu_flag("nx"))
		report(d, OK, "NX", NULL, "there");
	else
		report(d, WARN, "NX", "enable 'execute disable' in the firmware",
		       "off: guests cannot forbid execution");
}

static void check_tsc(struct doctor *d)
{
	const struct vmm_host *h = &d->host;
	char source[32];

	host_read_line("/sys/devices/system/clocksource/clocksource0/current_clocksource", source, sizeof source);
	if (!h->tsc_khz && d->kvm_fd >= 0)
		report(d, WARN, "TSC", NULL, "KVM does not tell its frequency: it has to be measured");
	else if (!h->tsc_constant)
		report(d, WARN, "TSC", NULL, "not constant: the guest's clock may drift");
	else if (!h->tsc_khz)
		report(d, OK, "TSC", NULL, "constant, host clock source '%s'", source);
	else
		report(d, OK, "TSC", NULL, "constant, %" PRIu64 ".%03" PRIu64 " MHz, host clock source '%s'",
		       h->tsc_khz / 1000, h->tsc_khz % 1000, source);
}

/* The choice in brackets of a file such as "always [madvise] never"; the whole line if there is none. */
static const char *chosen_word(char *line)
{
	char *from = strchr(line, '['), *to = from ? strchr(from, ']') : NULL;

	if (!to)
		return line;
	*to = 0;
	return from + 1;
}

static void check_memory(struct doctor *d)
{
	uint64_t available = host_meminfo_kib("MemAvailable"), huge = host_meminfo_kib("HugePages_Free");
	char line[128];
	const char *shmem;

	report(d, available >= 1 << 20 ? OK : WARN, "memory",
	       available >= 1 << 20 ? NULL : "a smaller --memory, or free some",
	       "%" PRIu64 " MiB, %" PRIu64 " MiB available, %" PRIu64 " huge pages free", d->host.memory >> 20,
	       available >> 10, huge);
	if (!host_read_line("/sys/kernel/mm/transparent_hugepage/shmem_enabled", line, sizeof line)) {
		report(d, WARN, "huge guest memory", NULL,
		       "this kernel has no transparent huge pages for shared memory");
		return;
	}
	shmem = chosen_word(line);
	if (!strcmp(shmem, "never") || !strcmp(shmem, "deny"))
		report(d, WARN, "huge guest memory",
		       "echo advise | sudo tee /sys/kernel/mm/transparent_hugepage/shmem_enabled",
		       "%s: 2 MiB mappings get no 2 MiB backing", shmem);
	else
		report(d, OK, "huge guest memory", NULL, "%s (transparent huge pages of shared memory)", shmem);
}

/* Only for looking at umbra with perf and bpftrace; guests run without. */
static void check_tracing(struct doctor *d)
{
	char level[16];

	if (!host_read_line("/proc/sys/kernel/perf_event_paranoid", level, sizeof level))
		report(d, WARN, "perf", NULL, "this kernel has no perf events");
	else if (level[0] != '-' && level[0] > '1' && geteuid())
		report(d, WARN, "perf", "sudo sysctl kernel.perf_event_paranoid=1",
		       "perf_event_paranoid is %s: no kernel samples for this user", level);
	else
		report(d, OK, "perf", NULL, "perf_event_paranoid is %s", level);
	if (!access("/sys/kernel/tracing/events", R_OK | X_OK))
		report(d, OK, "tracefs", NULL, "/sys/kernel/tracing");
	else
		report(d, WARN, "tracefs", "sudo mount -t tracefs tracefs /sys/kernel/tracing, and read it as root",
		       "not readable: KVM's trace events cannot be recorded");
}

int vmm_doctor(FILE *to)
{
	struct doctor d = { .to = to, .kvm_fd = -1 };

	vmm_host_probe(&d.host);
	fprintf(to, "umbra %s on Linux %s\n\n", vmm_version(), d.host.kernel);
	check_device(&d);
	if (d.kvm_fd >= 0 && d.host.api_version == KVM_API_VERSION) {
		check_kind(&d);
		check_ept(&d);
		check_capabilities(&d);
		check_trial(&d);
	}
	if (d.kvm_fd >= 0)
		close(d.kvm_fd);
	check_cpus(&d);
	check_tsc(&d);
	check_memory(&d);
	check_tracing(&d);
	if (d.failures)
		fprintf(to, "\nGuests cannot run here: %u failure%s, %u warning%s.\n", d.failures,
			d.failures == 1 ? "" : "s", d.warnings, d.warnings == 1 ? "" : "s");
	else
		fprintf(to, "\nGuests can run here; %u warning%s. Next: make run, or umbra run --help\n", d.warnings,
			d.warnings == 1 ? "" : "s");
	return d.failures ? VMM_EXIT_NO_HOST : VMM_EXIT_OK;
}

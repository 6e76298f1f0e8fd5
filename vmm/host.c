/*
 * host.c - what the host is: facts for the report and for choosing a kick method.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <linux/kvm.h>

#include "vmm/host.h"
#include "vmm/vmm.h"

bool host_read_line(const char *path, char *to, size_t size)
{
	FILE *f = fopen(path, "re");
	bool ok;

	to[0] = 0;
	if (!f)
		return false;
	ok = fgets(to, size, f);
	fclose(f);
	to[strcspn(to, "\n")] = 0;
	return ok;
}

/* The value of a "key : value" line of /proc/cpuinfo's first processor. */
static bool cpuinfo_value(const char *key, char *to, size_t size)
{
	FILE *f = fopen("/proc/cpuinfo", "re");
	char line[4096];
	size_t n = strlen(key);
	bool found = false;

	if (!f)
		return false;
	while (!found && fgets(line, sizeof line, f)) {
		char *colon = strchr(line, ':');

		if (!colon || strncmp(line, key, n) || (line[n] != '\t' && line[n] != ' ' && line[n] != ':'))
			continue;
		colon += 1 + strspn(colon + 1, " ");
		colon[strcspn(colon, "\n")] = 0;
		snprintf(to, size, "%s", colon);
		found = true;
	}
	fclose(f);
	return found;
}

bool host_cpu_flag(const char *word)
{
	char flags[4096], *save, *p;

	if (!cpuinfo_value("flags", flags, sizeof flags))
		return false;
	for (p = strtok_r(flags, " ", &save); p; p = strtok_r(NULL, " ", &save))
		if (!strcmp(p, word))
			return true;
	return false;
}

uint64_t host_meminfo_kib(const char *key)
{
	FILE *f = fopen("/proc/meminfo", "re");
	size_t n = strlen(key);
	uint64_t kib = 0;
	char line[128];

	if (!f)
		return 0;
	while (fgets(line, sizeof line, f))
		if (!strncmp(line, key, n) && line[n] == ':') {
			sscanf(line + n + 1, "%" SCNu64, &kib);
			break;
		}
	fclose(f);
	return kib;
}

static bool module_is_there(const char *name)
{
	char path[64];

	snprintf(path, sizeof path, "/sys/module/%s", name);
	return !access(path, F_OK);
}

/* A built-in module has its folder even if it found no hardware, so the processor is asked too. */
static enum vmm_host_kind find_kind(void)
{
	if (module_is_there("kvm_intel") && host_cpu_flag("vmx"))
		return VMM_HOST_VTX;
	if (module_is_there("kvm_amd") && host_cpu_flag("svm"))
		return VMM_HOST_SVM;
	if (module_is_there("kvm_pvm"))
		return VMM_HOST_PVM;
	return VMM_HOST_UNKNOWN;
}

static int find_second_level(enum vmm_host_kind kind)
{
	const char *path = kind == VMM_HOST_VTX ? "/sys/module/kvm_intel/parameters/ept"
						: "/sys/module/kvm_amd/parameters/npt";
	char value[8];

	if ((kind != VMM_HOST_VTX && kind != VMM_HOST_SVM) || !host_read_line(path, value, sizeof value))
		return -1;
	return value[0] == 'Y' || value[0] == '1';
}

/* Numbers in a list such as "0-3,8". */
static unsigned count_list(const char *path)
{
	char list[1024], *p = list;
	unsigned n = 0, from, to;
	int used;

	if (!host_read_line(path, list, sizeof list))
		return 0;
	while (sscanf(p, "%u%n", &from, &used) == 1) {
		p += used;
		to = from;
		if (*p == '-' && sscanf(p + 1, "%u%n", &to, &used) == 1)
			p += 1 + used;
		n += to >= from ? to - from + 1 : 0;
		if (*p == ',')
			p++;
	}
	return n;
}

/* One page of memory, one vCPU. */
void host_try_vm(int kvm_fd, struct host_trial *out)
{
	struct kvm_userspace_memory_region slot = { .memory_size = 4096 };
	int vm, vcpu, r;
	void *page;

	*out = (struct host_trial){ .vm = -ECANCELED, .slot = -ECANCELED, .vcpu = -ECANCELED };
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED) {
		out->vm = -errno;
		return;
	}
	vm = ioctl(kvm_fd, KVM_CREATE_VM, 0);
	out->vm = vm < 0 ? -errno : 0;
	if (vm < 0)
		goto unmap;
	slot.userspace_addr = (uintptr_t)page;
	out->slot = ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot) ? -errno : 0;
	if (out->slot)
		goto close_vm;
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	out->vcpu = vcpu < 0 ? -errno : 0;
	if (vcpu < 0)
		goto close_vm;
	r = ioctl(vcpu, KVM_GET_TSC_KHZ);
	out->tsc_khz = r > 0 ? r : 0;
	close(vcpu);
close_vm:
	close(vm);
unmap:
	munmap(page, 4096);
}

static void probe_kvm(struct vmm_host *host)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	struct host_trial trial;

	if (fd < 0) {
		host->kvm_error = -errno;
		return;
	}
	host->api_version = ioctl(fd, KVM_GET_API_VERSION, 0);
	if (host->api_version != KVM_API_VERSION) {
		host->kvm_error = -ENODEV;
	} else {
		host->sync_regs = ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS) > 0;
		host->immediate_exit = ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_IMMEDIATE_EXIT) > 0;
		host->stats_fd = ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_BINARY_STATS_FD) > 0;
		host->max_vcpus = ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
		host_try_vm(fd, &trial);
		host->tsc_khz = trial.tsc_khz;
	}
	close(fd);
}

void vmm_host_probe(struct vmm_host *host)
{
	struct utsname u;

	*host = (struct vmm_host){ .second_level = -1 };
	host->kind = find_kind();
	host->second_level = find_second_level(host->kind);
	probe_kvm(host);
	if (!uname(&u))
		snprintf(host->kernel, sizeof host->kernel, "%.60s %.30s", u.release, u.machine);
	cpuinfo_value("model name", host->cpu, sizeof host->cpu);
	host->cpus = sysconf(_SC_NPROCESSORS_ONLN);
	host->nodes = count_list("/sys/devices/system/node/online");
	host->memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
	host->fsgsbase = host_cpu_flag("fsgsbase");
	/* A hypervisor below may lose them: kvm_amd under QEMU's emulation does. */
	host->breakpoints = (host->kind == VMM_HOST_VTX || host->kind == VMM_HOST_SVM) && !host_cpu_flag("hypervisor");
	host->tsc_constant = host_cpu_flag("constant_tsc") && host_cpu_flag("nonstop_tsc");
}

const char *vmm_host_kind_name(enum vmm_host_kind kind)
{
	switch (kind) {
	case VMM_HOST_VTX:
		return "VT-x";
	case VMM_HOST_SVM:
		return "SVM";
	case VMM_HOST_PVM:
		return "PVM";
	default:
		return "unknown";
	}
}

const char *vmm_second_level_name(const struct vmm_host *host)
{
	if (host->kind == VMM_HOST_PVM || host->second_level == 0)
		return "none, KVM shadows the tables";
	if (host->second_level == 1)
		return host->kind == VMM_HOST_SVM ? "NPT" : "EPT";
	return "unknown";
}

/* vm.c - a VM from configuration to end: memory, MMU, vCPUs, console; how a run ends. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <x86intrin.h>

#include "vmm/control.h"
#include "vmm/ept.h"
#include "vmm/profile.h"
#include "vmm/shim_abi.h"
#include "vmm/symbols.h"
#include "vmm/vm.h"

void vmm_config_init(struct vmm_config *c)
{
	*c = (struct vmm_config){
		.memory = 512ull << 20,
		.vcpus = 1,
		.fast_cmdline = true,
		.kick = VMM_KICK_AUTO,
		.fill = MMU_FILL_LAZY,
		.prefetch = MMU_PREFETCH_OFF,
		.large = true,
		.link_ahead = true,
		.node_tables = true,
		.shim = (1u << SHIM_BITS) - 1,
		.huge = true,
		.numa = { .preferred = -1 },
		.table = true,
		.sample_every = 16,
		.trace_exits = 64,
		.profile_hz = 499,
	};
}

/*
 * nr_cpus: vcpu_op is_up is asked once per possible CPU, 8192 times in Debian's kernel. noreplace-smp: patching lock
 * prefixes away, or back when the second processor comes, costs 17 500 CR3 switches. The rest: no clock to calibrate, no
 * second console, entropy from the processor.
 */
const char *vmm_cmdline_additions(unsigned vcpus)
{
	static char s[160];

	snprintf(s, sizeof s, "console=hvc0 nr_cpus=%u noreplace-smp tsc=reliable random.trust_cpu=on panic=-1", vcpus);
	return s;
}

void vm_stop(struct vm *vm, int exit_code, const char *fmt, ...)
{
	va_list ap;

	pthread_mutex_lock(&vm->end_lock);
	if (!atomic_load(&vm->stop)) {
		va_start(ap, fmt);
		vsnprintf(vm->end_reason, sizeof vm->end_reason, fmt, ap);
		va_end(ap);
		vm->exit_code = exit_code;
		vm->end_ns = vm_now(vm);
		atomic_store(&vm->stop, true);
		console_kick(vm);
		for (unsigned i = 0; i < vm->nr_vcpus; i++)
			vcpu_wake(&vm->vcpus[i]);
	}
	pthread_mutex_unlock(&vm->end_lock);
}

void vcpu_crash(struct vcpu *v, const char *fmt, ...)
{
	char why[200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof why, fmt, ap);
	va_end(ap);
	/* Kept until the console is drained and the terminal is itself again. */
	pthread_mutex_lock(&v->vm->end_lock);
	if (!atomic_load(&v->vm->stop) && !v->vm->dump) {
		size_t size;
		FILE *f = open_memstream(&v->vm->dump, &size);

		domain_late_symbols(v->vm);
		if (f) {
			fprintf(f, "umbra: vCPU %u: %s\n", v->id, why);
			dump_vcpu(v, f);
			fclose(f);
		}
	}
	pthread_mutex_unlock(&v->vm->end_lock);
	vm_stop(v->vm, VMM_EXIT_CRASHED, "%s", why);
}

#define HUGE	(2ull << 20)

/* Memory of the VM. Private and anonymous: a fault on shared memory costs the host more. Aligned, so that the host can
 * back it with huge pages: then its KVM follows the 2 MiB entries of the monitor's tables with entries as large. */
static void *map_memory(uint64_t frames, bool huge)
{
	uint64_t size = frames << 12, skip;
	char *p = mmap(NULL, size + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return p;
	skip = -(uintptr_t)p & (HUGE - 1);
	if (skip)
		munmap(p, skip);
	munmap(p + skip + size, HUGE - skip);
	/* A host without transparent huge pages says EINVAL, and is merely slower. */
	madvise(p + skip, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	return p + skip;
}

static int add_slot(struct vm *vm, unsigned slot, uint64_t first, uint64_t frames, void *hva)
{
	struct kvm_userspace_memory_region r = {
		.slot = slot, .guest_phys_addr = first << 12, .memory_size = frames << 12, .userspace_addr = (uintptr_t)hva,
	};

	return ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &r) < 0 ? -errno : 0;
}

/* A pool that holds the leaf tables of all RAM twice, and then some; small guests still get room for many processes. */
static uint32_t default_pool(uint64_t ram_frames)
{
	uint64_t n = ram_frames / 512 * 4 + 4096;

	return n < 1u << 20 ? n : 1u << 20;
}

static int make_mmu(struct vm *vm)
{
	struct mmu_region regions[2 + NUMA_MAX_PLACES] = {
		{ .first = { 0 }, .count = vm->ram_frames, .hva = vm->ram },
		{ .first = vm->mon_first, .count = vm->mon_frames, .hva = vm->mon },
	};
	struct mmu_config c = {
		.regions = regions,
		.nr_regions = 2,
		.nr_gfns = vm->nr_gfns,
		.pool = vm->pool,
		.pool_pages = vm->pool_pages,
		.nr_nodes = vm->node_tables ? vm->nr_places : 1,
		.fill = vm->config->fill,
		.prefetch = vm->config->prefetch,
		.prefetch_n = vm->config->prefetch_n,
		.large = vm->config->large,
		.fill_linear = vm->config->fill_linear,
		.link_ahead = vm->config->link_ahead,
		.track_reach = vm->remote_flush,
		.nx = true,
		.preset_ad = true,
		.sample_every = vm->config->sample_every,
		.table_kick_min = vm->kick->table_min,
		.collapsed = mover_collapsed,
		.collapsed_arg = vm,
		.audit = vm->config->audit,
	};

	int r;

	for (unsigned i = 0; vm->nr_places > 1 && i < vm->nr_places; i++)
		regions[c.nr_regions++] = (struct mmu_region){ vm->node_base[i], vm->ram_frames, vm->place_hva[i] };
	monitor_build(vm, vm->hole);
	memcpy(c.hole, vm->hole, sizeof c.hole);
	if (shim_on(vm)) {
		c.view_entry = vm->shim_entry;
		c.view_slot = HOLE_SLOT_SHIM - HOLE_SLOT_FIRST;
		c.nr_views = vm->nr_vcpus;
	}
	for (unsigned i = 0; i < PIN_LOCKS; i++)
		pthread_mutex_init(&vm->pin_locks[i], NULL);
	r = shim_install(vm, false);
	if (!r)
		r = mmu_create(&c, &vm->mmu);
	return r ? r : vm->paging->create(vm);
}

/* Everything up to the point where a kernel can be loaded. */
static int machine_create(struct vm *vm, const char **what)
{
	const struct vmm_config *c = vm->config;
	int r;

	*what = "opening /dev/kvm";
	vm->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm_fd < 0)
		return -errno;
	*what = "creating a VM";
	vm->fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, 0);
	if (vm->fd < 0)
		return -errno;
	vm->gates = c->gates != VMM_GATES_VMM && vm->host.fsgsbase && (c->shim & SHIM_DOES(iret)) &&
		    (c->shim & SHIM_DOES(segment));
	vm->paging = c->mmu == VMM_MMU_NESTED ? &paging_nested : &paging_shadow;
	vm->kick = kick_choose(c->kick, &vm->host);
	/* A PVM host takes a write to a table of ours for what it is, and flushes all vCPUs itself (docs/smp.md). */
	vm->remote_flush = c->vcpus > 1 && (vm->host.kind != VMM_HOST_PVM || vm->paging->guest_tables);
	vm->ram_frames = c->memory >> 21 << 9;	/* the shim's map of RAM has 2 MiB entries */
	vm->nr_vcpus = c->vcpus;
	if (vm->host.max_vcpus && c->vcpus > (unsigned)vm->host.max_vcpus) {
		fprintf(stderr, "umbra: this host's KVM runs at most %d vCPUs: ask for fewer with --vcpus\n", vm->host.max_vcpus);
		return -EINVAL;
	}
	*what = NULL;			/* says it itself */
	r = placement_start(vm);
	if (!r)
		r = places_start(vm);
	if (!r)
		r = node_tables_start(vm, default_pool(vm->ram_frames));
	if (r)
		return r;
	monitor_layout(vm);

	*what = "allocating guest memory";
	vm->ram = map_memory(vm->ram_frames, c->huge);
	vm->mon = map_memory(vm->mon_frames, c->huge);
	if (vm->ram == MAP_FAILED || vm->mon == MAP_FAILED)
		return -errno;
	*what = NULL;
	r = placement_memory(vm);
	if (r)
		return r;
	*what = "reserving address space on every NUMA node";
	r = places_map(vm, map_memory);
	if (r)
		return r;
	*what = "allocating all of the guest's memory (--populate)";
	if (c->populate && madvise(vm->ram, vm->ram_frames << 12, MADV_POPULATE_WRITE))
		return -errno;
	*what = "giving the VM its memory";
	r = add_slot(vm, 0, 0, vm->ram_frames, vm->ram);
	if (!r)
		r = add_slot(vm, 1, vm->mon_first.n, vm->mon_frames, vm->mon);
	for (unsigned i = 0; !r && vm->nr_places > 1 && i < vm->nr_places; i++)
		r = add_slot(vm, 2 + i, vm->node_base[i].n, vm->ram_frames, vm->place_hva[i]);
	if (r)
		return r;
	*what = "setting up paging";
	r = make_mmu(vm);
	if (!r)
		r = node_tables_place(vm);
	if (!r)
		r = mover_create(vm);
	if (r)
		return r;
	*what = "reading the processor's features";
	r = cpuid_build(vm);
	if (r)
		return r;
	*what = "setting up event channels";
	r = evtchn_init(vm);
	if (r)
		return r;
	if (!c->initdomain) {
		r = evtchn_make_console(vm);
		if (r < 0)
			return r;
		vm->console_port = r;
	}
	*what = "creating a vCPU";
	vm->vcpus = calloc(vm->nr_vcpus, sizeof *vm->vcpus);
	if (!vm->vcpus)
		return -ENOMEM;
	for (unsigned i = 0; i < vm->nr_vcpus; i++) {
		r = vcpu_init(vm, &vm->vcpus[i], i);
		if (r)
			return r;
	}
	places_choose(vm);
	*what = "making the NUMA manager";
	r = machine_manager_create(vm);
	if (r)
		return r;
	vm->kvm_stats = kvm_stats_open(vm);	/* only counts: the guest runs without */
	return 0;
}

static void machine_destroy(struct vm *vm)
{
	profile_free(vm);
	numa_manager_destroy(vm->numa);
	kvm_stats_close(vm->kvm_stats);
	for (unsigned i = 0; vm->vcpus && i < vm->nr_vcpus; i++)
		vcpu_fini(&vm->vcpus[i]);
	free(vm->vcpus);
	mover_destroy(vm);
	evtchn_fini(vm);
	if (vm->paging)
		vm->paging->destroy(vm);
	if (vm->mmu)
		mmu_destroy(vm->mmu);
	free(vm->cpuid);
	symbols_free(vm->symbols);
	if (vm->fd > 0)
		close(vm->fd);
	if (vm->kvm_fd > 0)
		close(vm->kvm_fd);
	if (vm->ram && vm->ram != MAP_FAILED)
		munmap(vm->ram, vm->ram_frames << 12);
	if (vm->mon && vm->mon != MAP_FAILED)
		munmap(vm->mon, vm->mon_frames << 12);
	places_unmap(vm);
	console_free(vm);
	free(vm->marks);
	free(vm->dump);
}

static void run_vcpus(struct vm *vm)
{
	unsigned started = 0;

	if (vm->numa && numa_manager_start(vm->numa))
		vm_stop(vm, VMM_EXIT_ERROR, "no thread for the NUMA manager");
	for (; started < vm->nr_vcpus; started++) {
		int err = pthread_create(&vm->vcpus[started].thread, NULL, vcpu_thread, &vm->vcpus[started]);

		if (err) {
			vm_stop(vm, VMM_EXIT_ERROR, "no thread for vCPU %u: %s", started, strerror(err));
			break;
		}
	}
	while (started)
		pthread_join(vm->vcpus[--started].thread, NULL);
}

static int verdict(struct vm *vm)
{
	if (vm->exit_code == VMM_EXIT_OK && !console_expect_met(vm)) {
		fprintf(stderr, "umbra: the console never printed what --expect asked for: %s\n", vm->config->expect);
		return VMM_EXIT_NOT_EXPECTED;
	}
	return vm->exit_code;
}

/* The guest's tables are checked before a processor can walk them, so nothing may store to them but the VMM: the shim leaves
 * the table operations alone. And no helper, for there is no shadow. */
static void adapt_to_nested(struct vmm_config *c)
{
	c->shim &= ~(SHIM_DOES(mmu) | SHIM_DOES(mmuext));
	c->helper = VMM_HELPER_OFF;
	if (!c->quiet)
		fprintf(stderr, "umbra: nested mode: what changes page tables exits, to be checked; --fill, --prefetch, --large and "
			"--helper mean nothing here\n");
	if (!c->shadow_pages)
		c->shadow_pages = MMU_POOL_MIN;
}

/* One boot. *again: the guest asked for a reboot. */
static int run_once(const struct vmm_config *config, bool *again)
{
	struct vm vm = { .kvm_fd = -1, .fd = -1, .end_lock = PTHREAD_MUTEX_INITIALIZER,
			 .mark_lock = PTHREAD_MUTEX_INITIALIZER };
	const char *what = "";
	struct timespec now;
	struct vmm_config effective = *config;
	int r, code;

	if (config->mmu == VMM_MMU_NESTED)
		adapt_to_nested(&effective);
	config = vm.config = &effective;
	vmm_host_probe(&vm.host);
	if (vm.host.kvm_error) {
		fprintf(stderr, "umbra: /dev/kvm cannot be used: %s. `umbra doctor` says what this host needs\n",
			strerror(-vm.host.kvm_error));
		return VMM_EXIT_NO_HOST;
	}
	clock_gettime(CLOCK_MONOTONIC, &now);
	vm.start_ns = now.tv_sec * 1000000000ull + now.tv_nsec;
	vm.tsc_start = __rdtsc();
	vm.tsc_khz = vm.host.tsc_khz;

	r = machine_create(&vm, &what);
	if (r) {
		if (what)
			fprintf(stderr, "umbra: %s: %s\n", what, strerror(-r));
		code = VMM_EXIT_ERROR;
		goto out;
	}
	r = console_start(&vm);
	if (r) {
		fprintf(stderr, "umbra: console: %s\n", strerror(-r));
		code = VMM_EXIT_ERROR;
		goto out;
	}
	r = domain_build(&vm);
	if (r) {
		code = VMM_EXIT_ERROR;
		goto out;
	}
	r = feed_start(&vm);
	if (r) {
		fprintf(stderr, "umbra: the helper thread does not start: %s\n", strerror(-r));
		code = VMM_EXIT_ERROR;
		goto out;
	}
	r = profile_start(&vm);
	if (r)
		fprintf(stderr, "umbra: --profile: %s\n", strerror(-r));
	if (!r)
		r = control_start(&vm);
	if (!r) {
		vm.populated = ept_populated(&vm);
		run_vcpus(&vm);
	}
	control_stop(&vm);
	if (vm.numa)
		numa_manager_stop(vm.numa);
	feed_stop(&vm);
	if (r) {
		code = VMM_EXIT_ERROR;
		goto out;
	}
	console_finish(&vm);
	if (vm.dump)
		fputs(vm.dump, stderr);
	else if (vm.exit_code == VMM_EXIT_TIMEOUT && config->verbose)
		for (unsigned i = 0; i < vm.nr_vcpus; i++)
			dump_vcpu(&vm.vcpus[i], stderr);
	*again = vm.reboot && !config->on_reboot_exit;
	code = *again ? VMM_EXIT_OK : verdict(&vm);
	if (!config->quiet || code)
		fprintf(stderr, "umbra: %s\n", vm.end_reason);
	if (!*again && profile_finish(&vm))
		code = code ? code : VMM_EXIT_ERROR;
	if (config->table && !*again)
		stats_print_table(&vm, stderr);
	if (config->stats && !*again) {
		r = stats_write_json(&vm, config->stats);
		if (r) {
			fprintf(stderr, "umbra: %s: %s\n", config->stats, strerror(-r));
			code = code ? code : VMM_EXIT_ERROR;
		} else if (!config->quiet) {
			fprintf(stderr, "umbra: counters are in %s\n", config->stats);
		}
	}
out:
	console_finish(&vm);
	machine_destroy(&vm);
	return code;
}

int vmm_run(const struct vmm_config *config)
{
	bool again;
	int code;

	do {
		again = false;
		code = run_once(config, &again);
	} while (again);
	return code;
}

/*
 * paging_nested.c - struct paging_ops where CR3 is on the guest's own tables: --mmu=nested.
 *
 * The guest's table operations change types and references of frames (frames.h); what the processor and KVM may have cached
 * of the state before is gone when the guest runs again. Faults are the guest's own, but for stores to level-1 tables, which
 * Xen's guests map read-only and write all the same: these are emulated.
 */
#include <errno.h>
#include <stdlib.h>

#include "vmm/nested.h"

#define NO_GFN	MMU_NO_GFN.n

static void on_changed(void *arg, gfn_t table, unsigned index)
{
	nested_kick_entry(arg, table, index);
}

static void flush(struct vcpu *v)
{
	v->kicks_out = true;		/* the way in loads CR3 */
}

static void on_retyped(void *arg)
{
	flush(arg);
}

static const struct frames_owner owner = { .changed = on_changed, .retyped = on_retyped };

static struct nested_cpu *cpu_of(struct vcpu *v)
{
	return &v->vm->nested->cpu[v->id];
}

static struct frames *frames_of(struct vcpu *v)
{
	return v->vm->nested->frames;
}

static int nested_create(struct vm *vm)
{
	struct nested *n = calloc(1, sizeof *n);
	int r;

	if (!n)
		return -ENOMEM;
	r = frames_create(&(struct frames_config){ .ram = vm->ram, .ram_frames = vm->ram_frames, .nr_gfns = vm->nr_gfns,
						   .hole = vm->hole, .owner = &owner }, &n->frames);
	if (r) {
		free(n);
		return r;
	}
	for (unsigned i = 0; i < VMM_MAX_VCPUS; i++)
		n->cpu[i].root[MMU_KERNEL] = n->cpu[i].root[MMU_USER] = n->cpu[i].left = MMU_NO_GFN;
	vm->nested = n;
	return 0;
}

static void nested_destroy(struct vm *vm)
{
	if (!vm->nested)
		return;
	for (unsigned i = 0; i < VMM_MAX_VCPUS; i++)
		free(vm->nested->cpu[i].kicks);
	frames_destroy(vm->nested->frames);
	free(vm->nested);
	vm->nested = NULL;
}

/* ---- audit ------------------------------------------------------------------------------------------------------------- */

#define AUDIT_EVERY	64u	/* flushes and loads between audits of levels 1 and 2 */

static void audit(struct vcpu *v)
{
	struct nested *n = v->vm->nested;
	gfn_t held[VMM_MAX_VCPUS * 3];
	unsigned nr = 0, wrong;
	char why[128] = "";

	if (!v->vm->config->audit || (v->vm->config->audit < 3 && ++cpu_of(v)->audit_at % AUDIT_EVERY))
		return;
	for (unsigned i = 0; i < v->vm->nr_vcpus; i++) {
		const gfn_t one[] = { n->cpu[i].root[MMU_KERNEL], n->cpu[i].root[MMU_USER], n->cpu[i].left };

		for (unsigned k = 0; k < sizeof one / sizeof *one; k++)
			if (one[k].n != NO_GFN)
				held[nr++] = one[k];
	}
	wrong = frames_audit(n->frames, held, nr, n->kept, n->nr_kept, why, sizeof why);
	if (wrong)
		vm_stop(v->vm, VMM_EXIT_ERROR, "audit: %u frames have the wrong type or count: %s", wrong, why);
}

/* ---- roots ------------------------------------------------------------------------------------------------------------- */

/* The root in CR3 while the guest is out. */
static uint64_t loaded_root(const struct vcpu *v)
{
	return v->run->s.regs.sregs.cr3 >> 12;
}

static void put_left(struct vcpu *v)
{
	struct nested_cpu *n = cpu_of(v);

	if (n->left.n == NO_GFN || n->left.n == loaded_root(v))
		return;
	frames_put(frames_of(v), n->left, FRAME_L4);
	n->left = MMU_NO_GFN;
}

/*
 * The processor is still on the root it left the guest with, and the gate's way back in begins there: until CR3 has changed
 * the guest may not turn that frame into something else.
 */
static void drop_root(struct vcpu *v, gfn_t old)
{
	struct nested_cpu *n = cpu_of(v);

	put_left(v);
	if (old.n == NO_GFN)
		return;
	if (old.n == loaded_root(v) && n->left.n == NO_GFN)
		n->left = old;
	else
		frames_put(frames_of(v), old, FRAME_L4);
}

static bool is_kernel_root(struct vm *vm, gfn_t l4)
{
	for (unsigned i = 0; i < vm->nr_vcpus; i++)
		if (vm->nested->cpu[i].root[MMU_KERNEL].n == l4.n)
			return true;
	return false;
}

static int nested_load(struct vcpu *v, enum mmu_mode mode, gfn_t l4, mfn_t *root)
{
	struct nested_cpu *n = cpu_of(v);
	gfn_t old = n->root[mode];
	int r;

	if (l4.n != NO_GFN) {
		r = frames_get(frames_of(v), l4, FRAME_L4, v);
		if (r)
			return r;
		/* A guest that uses one table for both shows its user mode what is the kernel's. */
		if (mode == MMU_KERNEL || !is_kernel_root(v->vm, l4))
			frames_set_hole(frames_of(v), l4, mode, v);
		*root = (mfn_t){ l4.n };
	}
	n->root[mode] = l4;
	drop_root(v, old);
	flush(v);
	audit(v);
	return 0;
}

/* ---- tables ------------------------------------------------------------------------------------------------------------ */

static int nested_pin(struct vcpu *v, gfn_t table, unsigned level)
{
	return frames_pin(frames_of(v), table, level, v);
}

static int nested_unpin(struct vcpu *v, gfn_t table)
{
	return frames_unpin(frames_of(v), table);
}

static int nested_update(struct vcpu *v, gfn_t table, unsigned index, uint64_t gpte, bool preserve_ad)
{
	return frames_store(frames_of(v), table, index, gpte, preserve_ad, v);
}

static void nested_flush(struct vcpu *v)
{
	flush(v);
	audit(v);
}

static void nested_invlpg(struct vcpu *v, gva_t va)
{
	flush(v);
}

/* ---- faults ------------------------------------------------------------------------------------------------------------ */

/* The processor and the tables disagree: whatever is cached of the way to `va` has to go. */
static void forget_path(struct vcpu *v, uint64_t va)
{
	uint64_t table = v->l4[v->mode].n, gpte;

	for (unsigned level = MMU_LEVELS; level >= 1; level--) {
		unsigned index = va >> (MMU_PAGE_SHIFT + 9 * (level - 1)) & (MMU_ENTRIES - 1);

		gpte = frames_read(frames_of(v), (gfn_t){ table }, index);
		if (!(gpte & MMU_PTE_P))
			break;
		nested_kick_entry(v, (gfn_t){ table }, index);
		table = (gpte & MMU_PTE_ADDR) >> 12;
	}
	flush(v);
}

/* A store of the guest kernel to a level-1 table, which it maps read-only: Xen's ptwr_do_page_fault(). */
static bool store_to_table(struct vcpu *v, gva_t va, const struct mmu_walk *w)
{
	const uint32_t store = MMU_PF_P | MMU_PF_W;
	gfn_t table = { (w->gpte & MMU_PTE_ADDR) >> 12 };

	return v->mode == MMU_KERNEL && w->level == 1 && (w->error_code & (store | MMU_PF_RSVD)) == store &&
	       frames_type(frames_of(v), table) == FRAME_L1 && emulate_table_store(v, va.a, table) == EMUL_DONE;
}

static struct mmu_result nested_fault(struct vcpu *v, gva_t va, uint32_t access)
{
	struct nested_cpu *n = cpu_of(v);
	struct mmu_walk w = { .error_code = access };
	int r = mmu_translate(v->vm->mmu, v->l4[v->mode], v->mode, va, access, &w);

	if (!r) {
		n->spurious++;
		forget_path(v, va.a);
		return (struct mmu_result){ .verdict = MMU_SPURIOUS };
	}
	if (r == -EFAULT && store_to_table(v, va, &w)) {
		n->pt_write++;
		return (struct mmu_result){ .verdict = MMU_PTWRITE };
	}
	n->true_faults++;
	return (struct mmu_result){ .verdict = MMU_TRUE, .error_code = w.error_code };
}

/* ---- the rest ---------------------------------------------------------------------------------------------------------- */

/* Also makes sure that no processor takes the frame for the table it may have been. The VMM writes before the guest runs. */
static bool nested_may_write(struct vcpu *v, gfn_t gfn)
{
	if (frames_get(frames_of(v), gfn, FRAME_WRITABLE, v))
		return false;
	frames_put(frames_of(v), gfn, FRAME_WRITABLE);
	return true;
}

static int nested_keep_writable(struct vcpu *v, gfn_t gfn)
{
	struct nested *n = v->vm->nested;

	if (n->nr_kept == NESTED_KEPT || frames_get(n->frames, gfn, FRAME_WRITABLE, v))
		return -EBUSY;
	n->kept[n->nr_kept++] = gfn;
	return 0;
}

static void nested_kick_done(struct vcpu *v)
{
	frames_flushed(frames_of(v));
	put_left(v);
}

static void nested_add_stats(struct vm *vm, struct mmu_stats *m)
{
	for (unsigned i = 0; i < vm->nr_vcpus; i++) {
		m->true_faults += vm->nested->cpu[i].true_faults;
		m->pt_write += vm->nested->cpu[i].pt_write;
		m->spurious += vm->nested->cpu[i].spurious;
	}
}

static void nested_dump_walk(struct vcpu *v, enum mmu_mode mode, gva_t va, FILE *to)
{
	static const char *const types[] = { "untyped", "L1", "L2", "L3", "L4", "writable" };
	uint64_t table = v->l4[mode].n, gpte;

	for (unsigned level = MMU_LEVELS; level >= 1; level--) {
		unsigned index = va.a >> (MMU_PAGE_SHIFT + 9 * (level - 1)) & (MMU_ENTRIES - 1);

		gpte = frames_read(frames_of(v), (gfn_t){ table }, index);
		fprintf(to, "  L%u gfn %#8llx (%s) [%3u] = %016llx\n", level, (unsigned long long)table,
			types[frames_type(frames_of(v), (gfn_t){ table })], index, (unsigned long long)gpte);
		if (!(gpte & MMU_PTE_P))
			return;
		table = (gpte & MMU_PTE_ADDR) >> 12;
	}
}

const struct paging_ops paging_nested = {
	.name = "nested",
	.guest_tables = true,
	.create = nested_create,
	.destroy = nested_destroy,
	.load = nested_load,
	.pin = nested_pin,
	.unpin = nested_unpin,
	.update = nested_update,
	.flush = nested_flush,
	.invlpg = nested_invlpg,
	.fault = nested_fault,
	.may_write = nested_may_write,
	.keep_writable = nested_keep_writable,
	.kick_pending = nested_kick_pending,
	.kick_next = nested_kick_next,
	.kick_done = nested_kick_done,
	.add_stats = nested_add_stats,
	.dump_walk = nested_dump_walk,
};

/*
 * xen_mmu.c - the memory-management hypercalls. Here the ABI's 'mfn' becomes our gfn. The guest's tables are mere data:
 * a bad frame in an entry harms nothing until it is used, but Xen refuses it at once and guests rely on that.
 */
#include <errno.h>
#include <string.h>

#include "vmm/vm.h"

static bool gfn_ok(const struct vm *vm, uint64_t gfn)
{
	return gfn < vm->nr_gfns;
}

/* Xen refuses entries that name frames the domain does not own (get_page_from_l1e and friends). */
static bool entry_ok(const struct vm *vm, uint64_t gpte)
{
	return !(gpte & MMU_PTE_P) || gfn_ok(vm, (gpte & MMU_PTE_ADDR) >> 12);
}

/* Entries of the hole belong to the hypervisor: only the root table has them, and Xen refuses writes there. We cannot tell
 * a root from another table by its frame, and the MMU ignores those slots in roots, so nothing is checked here. */

long xen_mmu_update(struct vcpu *v, const uint64_t a[6])
{
	uint64_t list = a[0], count = a[1] & ~(1ull << 31) /* MMU_UPDATE_PREEMPTED */, done_va = a[2], done = 0;
	struct mmu_update u;
	long r = 0;

	if (a[3] != DOMID_SELF)
		return -EPERM;
	if (count >> 31)
		return -EINVAL;
	for (; done < count && !r; done++) {
		unsigned what = 0;

		if (guest_get(v, list + done * sizeof u, &u)) {
			r = -EFAULT;
			break;
		}
		what = u.ptr & 3;
		switch (what) {
		case MMU_NORMAL_PT_UPDATE:
		case MMU_PT_UPDATE_PRESERVE_AD:
			if (u.ptr & 4 || !gfn_ok(v->vm, u.ptr >> 12) || !entry_ok(v->vm, u.val))
				r = -EINVAL;
			else
				r = v->vm->paging->update(v, (gfn_t){ u.ptr >> 12 }, (u.ptr & 4095) / 8, u.val,
							  what == MMU_PT_UPDATE_PRESERVE_AD);
			break;
		case MMU_MACHPHYS_UPDATE:	/* the M2P is the identity and stays it */
			r = u.ptr >> 12 == u.val && gfn_ok(v->vm, u.val) ? 0 : -EINVAL;
			break;
		default:
			r = -ENOSYS;
		}
		if (r)
			break;
		if (done % 4096 == 4095 && atomic_load(&v->vm->stop))
			r = -EINTR;
	}
	if (done_va) {
		uint32_t n = done;

		if (guest_put(v, done_va, &n))
			return -EFAULT;
	}
	return r;
}

/* The ABI's flush flags; flushes of other vCPUs' TLBs are the same thing while the shadow is shared and kicked. */
static long flush(struct vcpu *v, uint64_t va, uint64_t flags)
{
	switch (flags & UVMF_FLUSHTYPE_MASK) {
	case UVMF_NONE:
		return 0;
	case UVMF_TLB_FLUSH:
		v->vm->paging->flush(v);
		return 0;
	case UVMF_INVLPG:
		v->vm->paging->invlpg(v, (gva_t){ va });
		return 0;
	default:
		return -ENOSYS;
	}
}

long xen_update_va_mapping(struct vcpu *v, const uint64_t a[6])
{
	uint64_t va = a[0], gpte = a[1], flags = a[2];
	struct mmu_walk w;
	long r = 0, f;

	/* The leaf need not be present, the table must be: a walk that stops at level 1 names it. */
	if (!entry_ok(v->vm, gpte) || (uint64_t)((int64_t)(va << 16) >> 16) != va ||
	    (mmu_translate(v->vm->mmu, v->l4[MMU_KERNEL], MMU_KERNEL, (gva_t){ va }, 0, &w) == -EINVAL) || w.level != 1)
		r = -EINVAL;
	else
		r = v->vm->paging->update(v, w.table, w.index, gpte, false);
	f = flush(v, va, flags);
	return r ? r : f;
}

int xen_new_baseptr(struct vcpu *v, gfn_t l4)
{
	mfn_t root;
	int r = v->vm->paging->load(v, MMU_KERNEL, l4, &root);

	if (r)
		return r;
	v->l4[MMU_KERNEL] = l4;
	v->root[MMU_KERNEL] = root;
	return 0;
}

int xen_new_user_baseptr(struct vcpu *v, uint64_t l4)
{
	mfn_t root = { 0 };
	int r;

	if (l4 == 0) {		/* none: a return to user mode is then fatal to the guest */
		v->vm->paging->load(v, MMU_USER, MMU_NO_GFN, &root);
		v->l4[MMU_USER] = MMU_NO_GFN;
		return 0;
	}
	r = v->vm->paging->load(v, MMU_USER, (gfn_t){ l4 }, &root);
	if (r)
		return r;
	v->l4[MMU_USER] = (gfn_t){ l4 };
	v->root[MMU_USER] = root;
	return 0;
}

static long copy_frame(struct vcpu *v, uint64_t to, const uint64_t *from)
{
	const char *f = from ? mmu_gfn_hva(v->vm->mmu, (gfn_t){ *from }) : NULL;
	char page[4096] = { 0 };

	if ((from && !f) || !gfn_ok(v->vm, to) || !v->vm->paging->may_write(v, (gfn_t){ to }))
		return -EINVAL;
	if (f)
		memcpy(page, f, sizeof page);
	return mmu_write(v->mmu, (gfn_t){ to }, 0, page, sizeof page);
}

/* Flushes reach every vCPU anyway; a mask that cannot be read is refused all the same. */
static bool mask_ok(struct vcpu *v, const struct mmuext_op *op)
{
	uint64_t mask;

	return !guest_get(v, (uintptr_t)op->arg2.vcpumask.p, &mask);
}

static long mmuext(struct vcpu *v, const struct mmuext_op *op)
{
	uint64_t gfn = op->arg1.mfn;

	if ((op->cmd == MMUEXT_TLB_FLUSH_MULTI || op->cmd == MMUEXT_INVLPG_MULTI) && !mask_ok(v, op))
		return -EINVAL;

	switch (op->cmd) {
	case MMUEXT_PIN_L1_TABLE:
	case MMUEXT_PIN_L2_TABLE:
	case MMUEXT_PIN_L3_TABLE:
	case MMUEXT_PIN_L4_TABLE:
		return gfn_ok(v->vm, gfn) ? v->vm->paging->pin(v, (gfn_t){ gfn }, op->cmd - MMUEXT_PIN_L1_TABLE + 1) : -EINVAL;
	case MMUEXT_UNPIN_TABLE:
		return gfn_ok(v->vm, gfn) ? v->vm->paging->unpin(v, (gfn_t){ gfn }) : -EINVAL;
	case MMUEXT_NEW_BASEPTR:
		return xen_new_baseptr(v, (gfn_t){ gfn });
	case MMUEXT_NEW_USER_BASEPTR:
		return xen_new_user_baseptr(v, gfn);
	case MMUEXT_TLB_FLUSH_LOCAL:
	case MMUEXT_TLB_FLUSH_MULTI:
	case MMUEXT_TLB_FLUSH_ALL:
		v->vm->paging->flush(v);
		return 0;
	case MMUEXT_INVLPG_LOCAL:
	case MMUEXT_INVLPG_MULTI:
	case MMUEXT_INVLPG_ALL:
		v->vm->paging->invlpg(v, (gva_t){ op->arg1.linear_addr });
		return 0;
	case MMUEXT_FLUSH_CACHE:
	case MMUEXT_FLUSH_CACHE_GLOBAL:
		return 0;		/* no device of ours bypasses the caches */
	case MMUEXT_SET_LDT:
		return xen_set_ldt(v, op->arg1.linear_addr, op->arg2.nr_ents);
	case MMUEXT_CLEAR_PAGE:
		return copy_frame(v, gfn, NULL);
	case MMUEXT_COPY_PAGE:
		return copy_frame(v, gfn, &(uint64_t){ op->arg2.src_mfn });
	default:
		return -ENOSYS;
	}
}

long xen_mmuext_op(struct vcpu *v, const uint64_t a[6])
{
	uint64_t list = a[0], count = a[1] & ~(1ull << 31), done_va = a[2], done = 0;
	struct mmuext_op op;
	long r = 0;

	if (a[3] != DOMID_SELF)
		return -EPERM;
	if (count >> 31)
		return -EINVAL;
	for (; done < count; done++) {
		if (guest_get(v, list + done * sizeof op, &op))
			r = -EFAULT;
		else
			r = mmuext(v, &op);
		/* The pool is dry until pending kicks have run: let the guest come again with the rest. The hypercall
		 * instruction is executed once more, which MMU updates allow (they are idempotent). */
		if (r == -EAGAIN && v->vm->paging->kick_pending(v) && v->retries++ < 64) {
			v->restart = true;
			return 0;
		}
		if (r || atomic_load(&v->vm->stop))
			break;
	}
	v->retries = 0;
	if (done_va) {
		uint32_t n = done;

		if (guest_put(v, done_va, &n))
			return -EFAULT;
	}
	return r;
}

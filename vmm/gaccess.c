/* gaccess.c - guest memory by guest address: the one way in which the VMM touches it. */
#include <errno.h>
#include <string.h>

#include "vmm/vm.h"

/* Stores go by mmu_write(): the frame may be on the move. */
static int guest_copy(struct vcpu *v, gfn_t l4, enum mmu_mode mode, uint64_t va, void *host, size_t bytes, uint32_t access,
		      size_t *done)
{
	struct mmu *mmu = v->vm->mmu;
	struct mmu_walk w;

	for (*done = 0; *done < bytes;) {
		uint64_t at = va + *done;
		size_t n = 4096 - (at & 4095);
		char *page;

		if (n > bytes - *done)
			n = bytes - *done;
		/* The hole is not the guest's, whatever its own tables say there. */
		if (in_hole(at))
			return -EFAULT;
		if (mmu_translate(mmu, l4, mode, (gva_t){ at }, access, &w) || !(page = mmu_gfn_hva(mmu, w.gfn)))
			return -EFAULT;
		if (access & MMU_PF_W) {
			mmu_write(v->mmu, w.gfn, at & 4095, (char *)host + *done, n);
		} else {
			memcpy((char *)host + *done, page + (at & 4095), n);
		}
		*done += n;
	}
	return 0;
}

int guest_read(struct vcpu *v, uint64_t va, void *to, size_t bytes)
{
	size_t done;

	return guest_copy(v, v->l4[MMU_KERNEL], MMU_KERNEL, va, to, bytes, 0, &done);
}

int guest_write(struct vcpu *v, uint64_t va, const void *from, size_t bytes)
{
	size_t done;

	return guest_copy(v, v->l4[MMU_KERNEL], MMU_KERNEL, va, (void *)from, bytes, MMU_PF_W, &done);
}

int guest_fetch(struct vcpu *v, uint64_t va, void *to, size_t bytes, size_t *got)
{
	int r = guest_copy(v, v->l4[v->mode], v->mode, va, to, bytes, MMU_PF_FETCH, got);

	return *got ? 0 : r;
}

void *guest_phys(struct vm *vm, uint64_t pa, size_t bytes)
{
	char *page;

	if (bytes > 4096 || (pa & 4095) + bytes > 4096)
		return NULL;
	page = mmu_gfn_hva(vm->mmu, (gfn_t){ pa >> 12 });
	return page ? page + (pa & 4095) : NULL;
}

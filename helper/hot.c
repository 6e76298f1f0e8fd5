/* hot.c - what new address spaces of one kind have faulted on. */
#include "helper/hot.h"

void hot_begin(struct hot *h, gfn_t root, unsigned early)
{
	hot_end(h, root);
	h->young[h->next].root = root;
	h->young[h->next].faults_left = early;
	h->next = (h->next + 1) % HOT_YOUNG;
}

void hot_end(struct hot *h, gfn_t root)
{
	for (unsigned i = 0; i < HOT_YOUNG; i++)
		if (h->young[i].root.n == root.n)
			h->young[i].faults_left = 0;
}

bool hot_is_young(const struct hot *h, gfn_t root)
{
	for (unsigned i = 0; i < HOT_YOUNG; i++)
		if (h->young[i].faults_left && h->young[i].root.n == root.n)
			return true;
	return false;
}

bool hot_learn(struct hot *h, const struct helper_event *e)
{
	uint64_t page = (e->va.a >> MMU_PAGE_SHIFT) + 1;
	unsigned at = page * 0x9e3779b97f4a7c15ull >> 56 & (HOT_PAGES - 1);

	if (e->fault != HELPER_FAULT_HIDDEN || e->level != 1 || e->va.a > SPACE_USER_END)
		return false;
	for (unsigned i = 0; i < HOT_YOUNG; i++) {
		if (!h->young[i].faults_left || h->young[i].root.n != e->root.n)
			continue;
		h->young[i].faults_left--;
		if (h->pages[at].page == page) {
			h->pages[at].score++;
		} else if (!(h->pages[at].score /= 2)) {
			h->pages[at].page = page;
			h->pages[at].score = 1;
		}
		return true;
	}
	return false;
}

void hot_build(struct heuristic_ctx *c, const struct hot *h, gfn_t root)
{
	gfn_t table;
	unsigned index;

	for (unsigned i = 0; i < HOT_PAGES; i++)
		if (h->pages[i].score &&
		    space_find(c, root, (gva_t){ (h->pages[i].page - 1) << MMU_PAGE_SHIFT }, &table, &index) &&
		    !heuristic_build(c, table, index, MMU_PB_YOUNG))
			return;
}
